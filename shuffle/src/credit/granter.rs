//! The receiver's end of all channels of a gate: who gets how much of the gate's room.
//!
//! - Each channel has a **floor**, which is promised to it whatever the others do. If the pool holds every channel's
//!   whole window, that is the floor; else half of the pool is shared out as floors, of a segment at least.
//! - The rest **floats**: it goes to channels that have announced a backlog, a segment at a time and in turns.
//! - Floors take up no more than seven eighths of the pool. Channels beyond that have none: each is **lent** one segment
//!   at a time, in turns, when it announces a backlog. A lent segment is closed at every flush, so that reading it frees
//!   it, and an idle sender holds none. What lies behind a barrier is in a segment of its own, and a blocked channel is
//!   lent nothing: so those that wait for a barrier hold no room that others need to bring theirs.
//!
//! A smaller target lowers floors and stops what floats until enough was freed; nothing is ever taken back.
//!
//! **Invariant:** `Σ max(granted − freed, floor)` over channels with a floor `≤ pool − reserve`; what is lent `≤ reserve`.

use std::collections::VecDeque;

use super::{Backlog, Grant};

/// What remains to be lent, as a part of the pool: 1 of so many.
const RESERVE_PART: u64 = 8;

/// The peer has broken the rules of credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender used {used} bytes of room where {granted} were granted")]
pub struct Overrun {
    pub used: u64,
    pub granted: u64,
}

/// How a channel begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub granted: Grant,
    /// The most that may be granted and not freed, in bytes.
    pub window: u64,
    /// It has no floor.
    pub is_lent: bool,
}

/// The room of a gate, and what was promised of it. All amounts are bytes, in whole segments.
#[derive(Clone, Debug)]
pub struct Granter {
    segment_bytes: u64,
    pool: u64,
    /// What of the pool is lent to channels without a floor; 0 if there are none.
    reserve: u64,
    /// What channels with a floor may have together for now, at most `pool - reserve`.
    target: u64,
    /// What all windows come to.
    windows: u64,
    accounts: Vec<Account>,
    /// `Σ max(granted − freed, floor)` over channels with a floor.
    committed: u64,
    lent: u64,
    /// `Σ(granted − freed)`.
    outstanding: u64,
    /// Channels with a floor that could use more, each at most once.
    floating: VecDeque<usize>,
    /// Channels without a floor that could use a segment, each at most once.
    lending: VecDeque<usize>,
    /// Channels whose total has grown since the last `take_grants`.
    news: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Account {
    window: u64,
    /// What it may have of its window for now.
    limit: u64,
    floor: u64,
    is_lent: bool,
    granted: u64,
    received: u64,
    freed: u64,
    wanted: u64,
    is_blocked: bool,
    is_queued: bool,
    is_news: bool,
}

impl Account {
    fn outstanding(&self) -> u64 {
        self.granted - self.freed
    }

    /// What it takes up of the pool.
    fn committed(&self) -> u64 {
        if self.is_lent { 0 } else { self.outstanding().max(self.floor) }
    }

    fn could_use_more(&self, segment_bytes: u64) -> bool {
        let has_place = if self.is_lent {
            self.granted == self.freed
        } else {
            self.granted + segment_bytes <= self.freed + self.limit
        };
        self.wanted > self.granted && has_place && !self.is_blocked
    }
}

impl Granter {
    /// For channels of these windows, which together may have `pool` bytes; all is rounded to segments, a window to one at
    /// least and the pool to two.
    pub fn new(segment_bytes: u64, pool: u64, windows: &[u64]) -> Granter {
        let whole = |bytes: u64| bytes - bytes % segment_bytes;
        let windows: Vec<u64> = windows.iter().map(|window| whole(*window).max(segment_bytes)).collect();
        let sum: u64 = windows.iter().sum();
        let pool = sum.min(whole(pool).max(2 * segment_bytes));
        let floors_max = Self::floors_max(segment_bytes, pool);
        let has_lent = sum > pool && windows.len() > floors_max;
        let reserve = if has_lent { pool - floors_max as u64 * segment_bytes } else { 0 };
        let account = |(index, window): (usize, u64)| Account {
            window,
            limit: window,
            floor: 0,
            is_lent: has_lent && index >= floors_max,
            granted: 0,
            received: 0,
            freed: 0,
            wanted: 0,
            is_blocked: false,
            is_queued: false,
            is_news: false,
        };
        let mut granter = Granter {
            segment_bytes,
            pool,
            reserve,
            target: pool - reserve,
            windows: sum,
            accounts: windows.into_iter().enumerate().map(account).collect(),
            committed: 0,
            lent: 0,
            outstanding: 0,
            floating: VecDeque::new(),
            lending: VecDeque::new(),
            news: Vec::new(),
        };
        for channel in 0..granter.accounts.len() {
            granter.move_floor(channel);
        }
        granter.take_grants(|_, _| {});
        granter
    }

    /// For channels that have a window each and share nothing.
    pub fn fixed(segment_bytes: u64, windows: &[u64]) -> Granter {
        let whole = |window: &u64| (window - window % segment_bytes).max(segment_bytes);
        Granter::new(segment_bytes, windows.iter().map(whole).sum(), windows)
    }

    /// How many channels may have floors in a pool that does not hold all windows.
    pub fn floors_max(segment_bytes: u64, pool: u64) -> usize {
        let segments = (pool / segment_bytes).max(2);
        (segments - (segments / RESERVE_PART).max(1)) as usize
    }

    /// How a channel begins.
    pub fn opening(&self, channel: usize) -> Opening {
        let Account { granted, window, is_lent, .. } = self.accounts[channel];
        Opening { granted: Grant(granted), window: if is_lent { self.segment_bytes } else { window }, is_lent }
    }

    /// Counts `bytes` of room as used by what a sender has sent.
    ///
    /// # Errors
    /// If they were not granted.
    pub fn receive(&mut self, channel: usize, bytes: u64) -> Result<(), Overrun> {
        let account = &mut self.accounts[channel];
        let used = account.received.saturating_add(bytes);
        if used > account.granted {
            return Err(Overrun { used, granted: account.granted });
        }
        account.received = used;
        Ok(())
    }

    /// Counts `bytes` as reusable. Where they go, `take_grants` tells.
    pub fn free(&mut self, channel: usize, bytes: u64) {
        let account = &mut self.accounts[channel];
        let committed = account.committed();
        account.freed += bytes;
        self.outstanding -= bytes;
        assert!(account.freed <= account.received, "freed bytes that were never received");
        if account.is_lent {
            self.lent -= bytes;
        } else {
            self.committed -= committed - account.committed();
            self.move_floor(channel);
        }
        self.queue(channel);
        self.serve();
    }

    /// Takes note of what a sender could use; an old announcement changes nothing.
    pub fn announce(&mut self, channel: usize, backlog: Backlog) {
        let account = &mut self.accounts[channel];
        if backlog.0 > account.wanted {
            account.wanted = backlog.0;
            self.queue(channel);
            self.serve();
        }
    }

    /// What a channel has is not read for now: it gets no more than its floor.
    pub fn block(&mut self, channel: usize) {
        self.accounts[channel].is_blocked = true;
    }

    /// It is read again.
    pub fn unblock(&mut self, channel: usize) {
        self.accounts[channel].is_blocked = false;
        self.queue(channel);
        self.serve();
    }

    /// Changes how much the channels may have together. Less grants nothing until enough was freed, except floors.
    pub fn set_target(&mut self, bytes: u64) {
        self.target = bytes.min(self.pool - self.reserve);
        for channel in 0..self.accounts.len() {
            self.move_floor(channel);
        }
        self.serve();
    }

    /// Changes how much one channel may have, within its window. Less grants nothing until enough was freed.
    pub fn set_limit(&mut self, channel: usize, bytes: u64) {
        let account = &mut self.accounts[channel];
        let limit = (bytes - bytes % self.segment_bytes).clamp(self.segment_bytes, account.window);
        if limit != account.limit {
            account.limit = limit;
            self.move_floor(channel);
            self.queue(channel);
            self.serve();
        }
    }

    /// What a sender may have under way on its side of a network: its part of a target that is below the pool, two
    /// segments at least; everything if the gate may use all of its pool.
    pub fn share(&self) -> u64 {
        if self.target == self.pool - self.reserve {
            return u64::MAX;
        }
        (self.target / self.accounts.len() as u64).max(2 * self.segment_bytes)
    }

    /// What the channels may have together for now, with what is lent.
    pub fn target(&self) -> u64 {
        self.target + self.reserve
    }

    /// The most that was ever promised and not freed.
    pub fn pool(&self) -> u64 {
        self.pool
    }

    pub fn channels(&self) -> usize {
        self.accounts.len()
    }

    /// What is promised and not freed.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Whether `take_grants` has something to tell.
    #[inline]
    pub fn has_grants(&self) -> bool {
        !self.news.is_empty()
    }

    /// Shows the totals that have grown since the last call.
    pub fn take_grants(&mut self, mut tell: impl FnMut(usize, Grant)) {
        let Granter { news, accounts, .. } = self;
        for channel in news.drain(..) {
            let account = &mut accounts[channel];
            account.is_news = false;
            tell(channel, Grant(account.granted));
        }
    }

    /// What a channel's floor should be under the present target.
    fn floor_wish(&self, account: &Account) -> u64 {
        if account.is_lent {
            0
        } else if self.windows <= self.target {
            account.limit
        } else {
            let share = self.target / 2 / self.accounts.len() as u64;
            (share - share % self.segment_bytes).clamp(self.segment_bytes, account.limit)
        }
    }

    /// Moves a channel's floor to where it should be, up only as far as there is room, and promises it.
    fn move_floor(&mut self, channel: usize) {
        let wish = self.floor_wish(&self.accounts[channel]);
        let account = &mut self.accounts[channel];
        let before = account.committed();
        // Higher floors of others may have to wait for what floats. Those of one segment always fit: the pool was made so.
        let room = self.target.saturating_sub(self.committed - before);
        let most = (room - room % self.segment_bytes).max(account.floor).max(self.segment_bytes);
        account.floor = wish.min(most);
        let floor = account.freed + account.floor;
        self.committed = self.committed - before + account.committed();
        assert!(self.committed <= self.pool - self.reserve, "a floor was raised beyond the pool");
        self.promise(channel, floor);
    }

    fn promise(&mut self, channel: usize, total: u64) {
        let account = &mut self.accounts[channel];
        if total > account.granted {
            self.outstanding += total - account.granted;
            account.granted = total;
            if !std::mem::replace(&mut account.is_news, true) {
                self.news.push(channel);
            }
        }
    }

    fn queue(&mut self, channel: usize) {
        let account = &mut self.accounts[channel];
        if !account.is_queued && account.could_use_more(self.segment_bytes) {
            account.is_queued = true;
            if account.is_lent { self.lending.push_back(channel) } else { self.floating.push_back(channel) }
        }
    }

    /// Gives what floats, and what is lent, to those whose turn it is.
    fn serve(&mut self) {
        while self.committed + self.segment_bytes <= self.target
            && let Some(channel) = self.floating.pop_front()
        {
            let before = self.accounts[channel].committed();
            if self.serve_one(channel) {
                self.committed += self.accounts[channel].committed() - before;
                self.queue(channel);
            }
        }
        while self.lent + self.segment_bytes <= self.reserve
            && let Some(channel) = self.lending.pop_front()
        {
            if self.serve_one(channel) {
                self.lent += self.segment_bytes;
            }
        }
    }

    /// Promises a segment to a channel that has left its queue, unless it cannot use it any more.
    fn serve_one(&mut self, channel: usize) -> bool {
        let account = &mut self.accounts[channel];
        account.is_queued = false;
        let is_served = account.could_use_more(self.segment_bytes);
        if is_served {
            let total = account.granted + self.segment_bytes;
            self.promise(channel, total);
        }
        is_served
    }
}
