//! Guesses the next handle of the server. OpenSSH numbers open files from 0, takes the number that was freed last, and writes
//! it in four bytes; so the requests on a new file can be sent together with the OPEN, which saves a round trip.
//!
//! This is safe whatever the server does, as long as it works through one channel in order: a guess is never a handle that is
//! open, for a new file it is made only while no other OPEN of the channel is unanswered, and OPEN and what follows go out back
//! to back. So what follows refers to the new file or to nothing. The answer to OPEN decides; after a wrong guess all is sent again.
//! For reading, where nothing can be spoilt, several may be unanswered while numbers still only ascend.

use std::collections::HashSet;

/// Surplus of wrong guesses over right ones after which a channel stops guessing.
const WRONG: u32 = 4;

/// The handles of one channel.
#[derive(Default)]
pub struct Guess {
    open: HashSet<u32>,
    freed: Vec<u32>,
    count: u32,
    unanswered: u32,
    /// All that are unanswered got a number behind `count`.
    ascending: bool,
    wrong: u32,
}

impl Guess {
    /// Notes that an OPEN is sent, and returns its handle if that is known. `to_write`: of a new file to be written.
    pub fn opens(&mut self, to_write: bool) -> Option<u32> {
        let before = self.unanswered;
        self.unanswered += 1;
        let next = match before {
            0 => self.freed.last().copied().unwrap_or(self.count),
            _ if !to_write && self.ascending && self.freed.is_empty() => self.count.saturating_add(before),
            _ => {
                self.ascending = false;
                return None;
            }
        };
        self.ascending = self.freed.is_empty();
        (self.wrong < WRONG && !self.open.contains(&next)).then_some(next)
    }

    /// Notes the answer to an OPEN; `None` if it was refused.
    pub fn opened(&mut self, guess: Option<u32>, handle: Option<&[u8]>) {
        self.unanswered = self.unanswered.saturating_sub(1);
        let Some(handle) = handle else { return };
        let number = handle.try_into().map(u32::from_be_bytes);
        let Ok(number) = number else {
            self.wrong = WRONG;
            return;
        };
        match guess {
            Some(guess) if guess == number => self.wrong = self.wrong.saturating_sub(1),
            Some(_) => self.wrong += 1,
            None => {}
        }
        self.open.insert(number);
        self.freed.retain(|freed| *freed != number);
        let count = self.count.max(number.saturating_add(1));
        // those that are unanswered still counted from the old one
        self.ascending &= count == self.count.saturating_add(1);
        self.count = count;
    }

    /// Notes that a CLOSE is sent.
    pub fn closes(&mut self, handle: &[u8]) {
        if let Ok(number) = handle.try_into().map(u32::from_be_bytes)
            && self.open.remove(&number)
        {
            self.freed.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_openssh() {
        let mut guess = Guess::default();
        for number in 0..3u32 {
            assert_eq!(guess.opens(true), Some(number));
            guess.opened(Some(number), Some(&number.to_be_bytes()));
        }
        guess.closes(&0u32.to_be_bytes());
        guess.closes(&2u32.to_be_bytes());
        assert_eq!(guess.opens(true), Some(2), "the one that was freed last");
        assert_eq!(guess.opens(false), None, "another one is unanswered");
        guess.opened(Some(2), None);
        guess.opened(None, Some(&2u32.to_be_bytes()));
        assert_eq!(guess.opens(true), Some(0));
    }

    #[test]
    fn several_may_be_opened_for_reading_at_once() {
        let mut guess = Guess::default();
        assert_eq!([(); 3].map(|()| guess.opens(false)), [Some(0), Some(1), Some(2)]);
        assert_eq!(guess.opens(true), None);
        assert_eq!(guess.opens(false), None, "the fourth is not known");
        for number in 0..3u32 {
            guess.opened(Some(number), Some(&number.to_be_bytes()));
        }
        guess.opened(None, None);
        guess.opened(None, None);
        assert_eq!(guess.opens(true), Some(3));
    }

    #[test]
    fn a_handle_that_is_open_is_never_guessed_and_other_servers_are_left_alone() {
        let mut guess = Guess::default();
        for round in 0..100u32 {
            let number = round * 7 % 5;
            let next = guess.opens(false);
            assert!(next.is_none_or(|next| !guess.open.contains(&next)));
            guess.opened(next, Some(&number.to_be_bytes()));
            if round % 3 == 0 {
                guess.closes(&number.to_be_bytes());
            }
        }
        assert_eq!(guess.opens(false), None, "it was wrong too often");
        let mut guess = Guess::default();
        let next = guess.opens(false);
        guess.opened(next, Some(b"a name"));
        assert_eq!(guess.opens(false), None);
    }
}
