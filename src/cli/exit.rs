//! Exit codes, as `docs/cli.md` lists them.

use crate::error::Kind;

/// The command succeeded.
pub const OK: u8 = 0;
/// A snapshot was saved, but some sources could not be read.
pub const INCOMPLETE: u8 = 3;
/// Damage was found.
pub const DAMAGED: u8 = 4;
/// The server presents an older state than before, or another repository.
pub const TAMPERING: u8 = 15;
/// `status` found a limit exceeded.
pub const STALE: u8 = 16;

/// The reader of standard output closed it: 128 + SIGPIPE, as the shell reports it for other programs.
pub const CLOSED_PIPE: u8 = 141;

/// Returns the exit code of a failure.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Failed | Kind::Exists | Kind::Exhausted | Kind::Cancelled => 1,
        Kind::Usage => 2,
        Kind::Damaged | Kind::Missing => DAMAGED,
        Kind::NoRepository => 10,
        Kind::Passphrase => 12,
        Kind::Connection => 13,
        Kind::NoSpace => 14,
        Kind::Tampering => TAMPERING,
        Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_the_manual_names() {
        let kinds = [Kind::Failed, Kind::Usage, Kind::Damaged, Kind::Missing, Kind::Exists, Kind::NoRepository];
        assert_eq!(kinds.map(exit_code), [1, 2, 4, 4, 1, 10]);
        let kinds = [Kind::Passphrase, Kind::Connection, Kind::NoSpace, Kind::Tampering, Kind::Interrupted(15)];
        assert_eq!(kinds.map(exit_code), [12, 13, 14, 15, 143]);
    }
}
