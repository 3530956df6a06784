//! Both ends against each other and an oracle that keeps the totals of its own.

use super::*;

const SEGMENT: u64 = 4 << 10;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }
}

/// One channel: its sender, what is under way, and what the oracle knows of it.
#[derive(Default)]
struct Channel {
    spender: Spender,
    /// Segments that wait at the sender.
    waiting: u64,
    /// Sent and not received, received and not freed.
    on_the_way: u64,
    held: u64,
    /// Every total that was ever said, to arrive late, repeated and in any order.
    grants: Vec<Grant>,
    backlogs: Vec<Backlog>,
    /// In segments, as the oracle counts.
    sent: u64,
    received: u64,
    freed: u64,
    window: u64,
    is_blocked: bool,
}

struct Gate {
    granter: Granter,
    channels: Vec<Channel>,
}

impl Gate {
    fn new(pool: u64, windows: &[u64]) -> Gate {
        let granter = Granter::new(SEGMENT, pool, windows);
        let channel = |index| {
            let opening = granter.opening(index);
            let mut spender = Spender::default();
            spender.on_grant(opening.granted);
            Channel { spender, grants: vec![opening.granted], window: opening.window, ..Channel::default() }
        };
        let channels = (0..windows.len()).map(channel).collect();
        Gate { granter, channels }
    }

    fn random(random: &mut Random, channels: usize) -> Gate {
        let scale = [8, 64, 3000][random.index(3)];
        let pool = SEGMENT * (2 + random.below(scale));
        let window = |_| {
            let scale = [2, 10][random.index(2)];
            SEGMENT * (1 + random.below(scale))
        };
        let windows: Vec<u64> = (0..channels).map(window).collect();
        Gate::new(pool, &windows)
    }

    fn send(&mut self, channel: usize) {
        let channel = &mut self.channels[channel];
        while channel.waiting > 0 && channel.spender.try_spend(SEGMENT) {
            channel.waiting -= 1;
            channel.sent += 1;
            channel.on_the_way += 1;
        }
        channel.backlogs.extend(channel.spender.announce(channel.waiting * SEGMENT));
    }

    fn receive(&mut self, index: usize) {
        let channel = &mut self.channels[index];
        if channel.on_the_way > 0 {
            channel.on_the_way -= 1;
            channel.received += 1;
            channel.held += 1;
            assert_eq!(self.granter.receive(index, SEGMENT), Ok(()));
        }
    }

    fn free(&mut self, index: usize) {
        let channel = &mut self.channels[index];
        if channel.held > 0 && !channel.is_blocked {
            channel.held -= 1;
            channel.freed += 1;
            self.granter.free(index, SEGMENT);
            self.tell();
        }
    }

    fn tell(&mut self) {
        let Gate { granter, channels } = self;
        granter.take_grants(|channel, grant| channels[channel].grants.push(grant));
    }

    /// Delivers the newest of all that was said about a channel.
    fn deliver(&mut self, index: usize) {
        if let Some(backlog) = self.channels[index].backlogs.last().copied() {
            self.granter.announce(index, backlog);
        }
        self.tell();
        let channel = &mut self.channels[index];
        channel.spender.on_grant(*channel.grants.last().expect("there is a first one"));
    }

    fn check(&self, what: &dyn std::fmt::Display) {
        let mut promised = 0;
        for (index, channel) in self.channels.iter().enumerate() {
            let (Grant(told), sent) = channel.spender.totals();
            let Grant(granted) = *channel.grants.last().expect("there is a first one");
            assert!(channel.grants.is_sorted(), "{what}: channel {index}: a total has decreased");
            assert_eq!(sent, channel.sent * SEGMENT, "{what}");
            assert!(channel.freed <= channel.received && channel.received <= channel.sent, "{what}: channel {index}");
            assert!(sent <= told && told <= granted, "{what}: channel {index}");
            assert!(granted <= channel.freed * SEGMENT + channel.window, "{what}: channel {index} has too much room");
            promised += granted - channel.freed * SEGMENT;
        }
        assert!(promised <= self.granter.pool(), "{what}: {promised} bytes promised of {}", self.granter.pool());
        assert_eq!(promised, self.granter.outstanding(), "{what}");
    }

    /// Lets everybody do what they can, `rounds` times; whether nothing waits any more.
    fn drain(&mut self, rounds: usize) -> bool {
        for _ in 0..rounds {
            for index in 0..self.channels.len() {
                self.send(index);
                self.receive(index);
                self.free(index);
                self.deliver(index);
            }
            if self.channels.iter().all(|channel| channel.waiting + channel.on_the_way + channel.held == 0) {
                return true;
            }
        }
        false
    }
}

#[test]
fn random_operations_never_break_the_chain_or_the_pool_and_all_backlog_is_served_at_last() {
    for seed in 1..200_u64 {
        let mut random = Random(seed * 0x9e37_79b9);
        let count = 1 + random.index([3, 40, 400][seed as usize % 3]);
        let mut gate = Gate::random(&mut random, count);
        for step in 0..3_000 {
            let index = random.index(count);
            match random.below(9) {
                // Tiny flushes and huge records.
                0 | 1 => gate.channels[index].waiting += [1, 1, 1, 50][random.index(4)],
                2 => gate.send(index),
                3 => gate.receive(index),
                4 => gate.free(index),
                5 => {
                    let channel = &gate.channels[index];
                    if !channel.backlogs.is_empty() {
                        let any = channel.backlogs[random.index(channel.backlogs.len())];
                        gate.granter.announce(index, any);
                    }
                }
                6 => {
                    let channel = &mut gate.channels[index];
                    let any = channel.grants[random.index(channel.grants.len())];
                    channel.spender.on_grant(any);
                }
                7 => {
                    gate.granter.set_target(random.below(2 * gate.granter.pool()));
                    gate.granter.set_limit(index, random.below(8 * SEGMENT));
                }
                _ => {
                    let channel = &mut gate.channels[index];
                    channel.is_blocked = !channel.is_blocked;
                    if channel.is_blocked { gate.granter.block(index) } else { gate.granter.unblock(index) }
                }
            }
            gate.tell();
            if step % 16 == 0 {
                gate.check(&format_args!("seed {seed}, step {step}"));
            }
        }
        // Even under the smallest of targets.
        gate.granter.set_target(random.below(2) * SEGMENT);
        for index in 0..count {
            gate.channels[index].is_blocked = false;
            gate.granter.unblock(index);
        }
        gate.tell();
        let left: u64 = gate.channels.iter().map(|channel| channel.waiting).sum();
        assert!(gate.drain(left as usize * 2 + count * 3 + 10), "seed {seed}: nothing moves any more");
        gate.check(&format_args!("seed {seed}, at the end"));
    }
}

#[test]
fn a_gate_of_thousands_stays_within_its_pool_and_starves_none() {
    let (count, pool) = (10_000, 8 << 20);
    let mut gate = Gate::new(pool, &vec![128 << 10; count]);
    let lent = (0..count).filter(|index| gate.granter.opening(*index).is_lent).count();
    assert_eq!(lent, count - (pool - pool / 8) as usize / SEGMENT as usize);
    gate.check(&"at first");
    let each = 30;
    gate.channels.iter_mut().for_each(|channel| channel.waiting = each);
    // What is lent goes around, and nobody has it twice while another waits.
    let mut rounds = 0;
    while !gate.drain(1) {
        rounds += 1;
        assert!(rounds < 10_000, "nothing moves any more");
        let borrowers = || gate.channels[count - lent..].iter().map(|channel| channel.freed);
        let (least, most) = (borrowers().min().unwrap_or(0), borrowers().max().unwrap_or(0));
        assert!(most <= least + 2, "a channel has brought {most} segments, another one {least}");
        if rounds % 8 == 0 {
            gate.check(&format_args!("round {rounds}"));
        }
    }
    assert!(gate.channels.iter().all(|channel| channel.freed == each));
}

#[test]
fn what_floats_goes_to_those_who_have_a_backlog_and_comes_back() {
    // Floors of four segments each, and as much again floats.
    let mut gate = Gate::new(64 * SEGMENT, &[40 * SEGMENT; 8]);
    assert_eq!(gate.granter.opening(0).granted, Grant(4 * SEGMENT));
    // How much is under way at once on each channel, in the end, where a round trip lies between grant and data.
    let under_way = |gate: &mut Gate, busy: &[usize]| {
        let mut under_way = Vec::new();
        for _ in 0..100 {
            for index in busy.iter().copied() {
                gate.channels[index].waiting = 100;
                gate.deliver(index);
                gate.send(index);
            }
            under_way = busy.iter().map(|index| gate.channels[*index].on_the_way).collect();
            for _ in 0..64 {
                busy.iter().for_each(|index| gate.receive(*index));
                busy.iter().for_each(|index| gate.free(*index));
            }
            gate.check(&"busy");
        }
        under_way
    };
    // One alone gets all that floats, beside its floor.
    assert_eq!(under_way(&mut gate, &[3]), [4 + 32]);
    assert!(gate.drain(200));
    // The others find it there again, and share.
    assert_eq!(under_way(&mut gate, &[0, 1, 2, 4]), [4 + 8; 4]);
    // One that comes late gets its part of what those have who came first.
    assert_eq!(under_way(&mut gate, &[0, 1, 2, 4, 5, 6, 7]).into_iter().sum::<u64>(), 7 * 4 + 32);
    assert!(under_way(&mut gate, &[0, 1, 2, 4, 5, 6, 7]).into_iter().all(|segments| segments >= 8));
}

#[test]
fn channels_that_wait_for_a_barrier_hold_no_room_that_others_need_to_bring_theirs() {
    let count = 100;
    // Of 16 segments 2 are lent, to 86 channels in turns.
    let mut gate = Gate::new(16 * SEGMENT, &[8 * SEGMENT; 100]);
    // Each brings three segments; the barrier is in the second.
    gate.channels.iter_mut().for_each(|channel| channel.waiting = 3);
    let mut steps = 0;
    while gate.channels.iter().any(|channel| !channel.is_blocked) {
        steps += 1;
        assert!(steps < 1_000, "no barrier arrives any more");
        for index in 0..count {
            gate.deliver(index);
            gate.send(index);
            gate.receive(index);
            gate.free(index);
            if gate.channels[index].freed == 2 && !gate.channels[index].is_blocked {
                gate.channels[index].is_blocked = true;
                gate.granter.block(index);
            }
        }
        gate.check(&"aligning");
    }
    for index in 0..count {
        gate.channels[index].is_blocked = false;
        gate.granter.unblock(index);
    }
    gate.tell();
    assert!(gate.drain(1_000));
}

#[test]
fn a_gate_whose_windows_fit_its_pool_promises_them_all_at_once() {
    let granter = Granter::new(SEGMENT, 64 * SEGMENT, &[3 * SEGMENT + 5, 60 * SEGMENT, 1]);
    let granted = |index| granter.opening(index).granted.0 / SEGMENT;
    assert_eq!([granted(0), granted(1), granted(2)], [3, 60, 1]);
    assert_eq!(Granter::fixed(SEGMENT, &[SEGMENT * 7; 3]).opening(2).granted, Grant(7 * SEGMENT));
}

#[test]
fn a_sender_that_ignores_its_credit_is_noticed() {
    let mut granter = Granter::fixed(100, &[100]);
    assert_eq!(granter.receive(0, 100), Ok(()));
    assert_eq!(granter.receive(0, 1), Err(Overrun { used: 101, granted: 100 }));
    assert_eq!(granter.receive(0, u64::MAX), Err(Overrun { used: u64::MAX, granted: 100 }));
}

#[test]
fn a_shrunk_window_grants_nothing_until_it_has_caught_up() {
    let mut granter = Granter::fixed(10, &[100]);
    granter.receive(0, 100).unwrap();
    granter.set_target(10);
    let freed = |granter: &mut Granter, bytes| {
        granter.free(0, bytes);
        let mut told = None;
        granter.take_grants(|_, grant| told = Some(grant));
        told
    };
    assert_eq!(freed(&mut granter, 90), None);
    assert_eq!(freed(&mut granter, 10), Some(Grant(110)));
    // And a window that grows again is promised at once.
    granter.set_target(100);
    let mut told = None;
    granter.take_grants(|_, grant| told = Some(grant));
    assert_eq!(told, Some(Grant(200)));
}

#[test]
fn a_floor_rises_only_into_room_that_nothing_floats_in() {
    // Under a target of 15 the floors are one segment each, and one channel gets all that floats.
    let mut gate = Gate::new(16 * SEGMENT, &[16 * SEGMENT; 4]);
    assert!((0..4).all(|index| gate.granter.opening(index).granted == Grant(2 * SEGMENT)));
    gate.granter.set_target(15 * SEGMENT);
    (0..4).for_each(|index| gate.channels[index].waiting = 2);
    assert!(gate.drain(10));
    gate.channels[0].waiting = 100;
    gate.send(0);
    gate.deliver(0);
    gate.check(&"before");
    assert_eq!(gate.granter.outstanding(), 15 * SEGMENT);
    // Under one of 16 they should be two.
    gate.granter.set_target(16 * SEGMENT);
    gate.tell();
    gate.check(&"after");
    assert!(gate.drain(200));
    (1..4).for_each(|index| gate.channels[index].waiting = 2);
    assert!(gate.drain(10));
    assert!((0..4).all(|index| gate.channels[index].grants.last() >= Some(&Grant((gate.channels[index].freed + 2) * SEGMENT))));
}

#[test]
fn an_old_announcement_changes_nothing() {
    // Floors of one segment, and one floats.
    let mut granter = Granter::new(10, 40, &[40; 3]);
    let granted = |granter: &mut Granter| {
        let mut told = None;
        granter.take_grants(|_, grant| told = Some(grant));
        told
    };
    granter.announce(0, Backlog(40));
    assert_eq!(granted(&mut granter), Some(Grant(20)));
    granter.announce(0, Backlog(20));
    granter.receive(0, 20).unwrap();
    granter.free(0, 10);
    assert_eq!(granted(&mut granter), Some(Grant(30)));
    granter.free(0, 10);
    assert_eq!(granted(&mut granter), Some(Grant(40)));
}

#[test]
fn a_backlog_is_announced_once_and_only_if_there_is_no_room_for_it() {
    let mut spender = Spender::default();
    spender.on_grant(Grant(10));
    assert_eq!(spender.announce(10), None);
    assert!(spender.try_spend(10));
    assert_eq!(spender.announce(0), None);
    assert_eq!(spender.announce(20), Some(Backlog(30)));
    assert_eq!(spender.announce(20), None);
    spender.on_grant(Grant(20));
    assert!(spender.try_spend(10));
    assert_eq!(spender.announce(10), None);
    assert_eq!(spender.announce(15), Some(Backlog(35)));
}
