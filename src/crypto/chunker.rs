//! The chunker (placeholder until branch chunker lands).
/// Key.
pub struct ChunkerKey;
impl ChunkerKey {
    /// new
    pub fn new(_: &[u8; 4096], _: &[u8; 32]) -> Self {
        ChunkerKey
    }
    /// cut
    pub fn cut(&self, data: &[u8]) -> usize {
        data.len().min(1 << 20)
    }
}
/// max
pub const MAX: usize = 4 << 20;
