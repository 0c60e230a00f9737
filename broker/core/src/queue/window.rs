//! The messages that are known ahead of their first delivery.

use std::collections::VecDeque;

use crate::ids::{Meta, Seq};

/// A stretch of the topic that ends right before `next`. It is filled by publishes for as long as nothing is missing in
/// between, and by loads otherwise.
#[derive(Debug)]
pub(crate) struct Window {
    /// The first message that was never looked at.
    next: Seq,
    known: VecDeque<(Seq, Meta)>,
    /// Where the load that is under way starts.
    loading: Option<Seq>,
}

impl Window {
    pub(crate) fn new(next: Seq) -> Self {
        Window { next, known: VecDeque::new(), loading: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn front(&self) -> Option<(Seq, Meta)> {
        self.known.front().copied()
    }

    pub(crate) fn pop_front(&mut self) {
        self.known.pop_front();
    }

    /// The first message that was not taken out of the window yet.
    pub(crate) fn first_unseen(&self) -> Seq {
        self.known.front().map_or(self.next, |(seq, _)| *seq)
    }

    /// Takes published messages directly, as many as `len_max` leaves room for, if the window ends right before them.
    pub(crate) fn offer(&mut self, first: Seq, metas: impl Iterator<Item = Meta>, len_max: usize) {
        if self.loading.is_some() || self.next != first {
            return;
        }
        for meta in metas.take(len_max.saturating_sub(self.known.len())) {
            self.known.push_back((self.next, meta));
            self.next = self.next.next();
        }
    }

    /// Starts a load at `from`, at or after the end of the window, if none is under way.
    pub(crate) fn start_load(&mut self, from: Seq) {
        self.next = from;
        self.loading = Some(from);
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    /// Takes over that everything before `next` is settled.
    pub(crate) fn skip_to(&mut self, next: Seq) {
        self.next = self.next.max(next);
    }

    /// Takes what a load found. False when nothing was waited for, or nothing came forward.
    pub(crate) fn loaded(
        &mut self,
        from: Seq,
        metas: impl Iterator<Item = (Seq, Meta)>,
        next: Seq,
        len_max: usize,
    ) -> bool {
        if self.loading != Some(from) {
            return false;
        }
        self.loading = None;
        for (seq, meta) in metas {
            if seq < self.next || seq >= next {
                continue;
            }
            if self.known.len() >= len_max {
                self.next = seq;
                return true;
            }
            self.known.push_back((seq, meta));
            self.next = seq.next();
        }
        self.next = self.next.max(next);
        self.next > from
    }
}
