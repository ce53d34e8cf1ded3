//! A channel as the callers see it, and the choice of the channel for a request.

use crate::storage::sftp::guess::Guess;

/// One channel of a connection.
#[derive(Default)]
pub struct Channel {
    pub ready: bool,
    /// Whether it was opened for bulk data, since it takes less of the processor.
    pub bulk: bool,
    pub sending: usize,
    pub expecting: usize,
    pub puts: usize,
    pub guess: Guess,
}

impl Channel {
    /// Returns the bytes in flight.
    pub fn load(&self) -> usize {
        self.sending + self.expecting
    }
}

/// Returns the number of the channel with the least `load`.
pub fn idlest<L: Ord>(channels: &[Channel], load: impl Fn(&Channel) -> L) -> usize {
    let ready = channels.iter().enumerate().filter(|(_, channel)| channel.ready);
    ready.min_by_key(|(_, channel)| load(channel)).map_or(0, |(number, _)| number)
}

/// Like [`idlest`], among the channels for bulk data if there are any.
pub fn idlest_for_bulk<L: Ord>(channels: &[Channel], load: impl Fn(&Channel) -> L) -> usize {
    idlest(channels, |channel| (!channel.bulk, load(channel)))
}

/// Returns the number of the channel for a read. `open` is the channel on which the file is open: it is taken unless it has
/// `patience` bytes more to do than the idlest one, or the read is `large` and other channels are there for bulk data.
pub fn for_read(channels: &[Channel], open: Option<usize>, patience: usize, large: bool) -> usize {
    let best = if large { idlest_for_bulk(channels, Channel::load) } else { idlest(channels, Channel::load) };
    let is_near = |open: &usize| {
        channels[*open].load() <= channels[best].load() + patience
            && (!large || channels[*open].bulk || !channels[best].bulk)
    };
    open.filter(is_near).unwrap_or(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(bulk: bool, expecting: usize, puts: usize) -> Channel {
        Channel { ready: true, bulk, expecting, puts, ..Channel::default() }
    }

    #[test]
    fn bulk_data_takes_the_channels_for_it_and_small_requests_the_idlest_one() {
        let channels = [channel(false, 10, 0), channel(false, 0, 0), channel(true, 900, 3), channel(true, 800, 4)];
        assert_eq!(idlest(&channels, Channel::load), 1);
        assert_eq!(idlest_for_bulk(&channels, Channel::load), 3);
        assert_eq!(idlest_for_bulk(&channels, |channel| (channel.puts, channel.load())), 2);
        assert_eq!(idlest_for_bulk(&channels[..2], Channel::load), 1, "without such channels any will do");
        let not_ready = [channel(false, 10, 0), Channel { ready: false, ..channel(true, 0, 0) }];
        assert_eq!(idlest_for_bulk(&not_ready, Channel::load), 0);
    }

    #[test]
    fn a_read_stays_where_its_file_is_open_unless_that_costs_more() {
        let channels = [channel(false, 10, 0), channel(false, 0, 0), channel(true, 900, 0)];
        assert_eq!(for_read(&channels, Some(0), 10, false), 0);
        assert_eq!(for_read(&channels, Some(0), 9, false), 1, "the backlog is longer than the patience");
        assert_eq!(for_read(&channels, None, 0, false), 1);
        assert_eq!(for_read(&channels, Some(0), 10, true), 2, "a large read moves to the channel for bulk data");
        assert_eq!(for_read(&channels, Some(2), 900, false), 2, "a small one does not move back");
    }
}
