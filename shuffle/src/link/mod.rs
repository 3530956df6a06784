//! All channels between this worker and one peer, over one connection: what is said, in which order, and with what
//! credit. It takes bytes and gives batches, and knows no socket.
//!
//! ```text
//!  tasks ──segments──► outlets ──credit──► gather ──► Batch per lane ═══ lane ──► decoder ──► inlets ──segments──► tasks
//!                         ▲                                                                     │ freed
//!                         └─────────────── grants ◄═══ control stream ◄─── gather ◄──────────────┘
//! ```
//! On the control stream the other way: what waits for credit (backlog), for the receiver to decide who gets room.
//! The receiving worker asks for each channel, and names it by a number. A segment costs its whole size in credit, and is
//! filled at the receiver exactly as at the sender: so a small flush costs no more than it weighs, and what packing wastes
//! is counted.
//!
//! **Invariant:** a data frame that begins a segment is sent only after `Spender::try_spend`, and taken only if the
//! inlet's channel has credit for it.

mod gather;
mod inlets;
mod lanes;
mod outlets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millstream_model::{
    deployment::ChannelToken,
    id::{Generation, JobId, WorkerId},
    job_graph::Codec,
};

use self::{gather::Gather, inlets::Inlets, lanes::Lanes, outlets::Outlets};
use crate::{
    channel::{ChannelReceiver, ChannelSender},
    gate::GateSignal,
    transport::{Batch, Stream},
    wire::{
        Header, Malformed, PROTOCOL_VERSION,
        decoder::{Decoder, FrameSink},
        message::{ChannelKey, CoordinatorEvent, Hello, Message, Open},
    },
};

pub use self::inlets::Broken;

/// Channels that a peer asks for before this worker has them; more than that is no mistake but an attack.
const EARLY_MAX: usize = 1 << 20;

/// Who this worker is, and how it speaks to all of its peers.
#[derive(Clone, Debug)]
pub struct Local {
    pub job: JobId,
    pub worker: WorkerId,
    /// Streams that data is spread over, at both ends of each connection; 0 for a stream per channel.
    pub lanes: u8,
}

/// One deployment's channels between this worker and a peer.
pub struct PeerChannels {
    pub generation: Generation,
    pub token: ChannelToken,
    /// From tasks here to tasks there; `outlet_signal` has a bit for each.
    pub outlets: Vec<(ChannelKey, ChannelReceiver)>,
    pub outlet_signal: Arc<GateSignal>,
    /// From tasks there to tasks here; `grant_signal` has a bit for each.
    pub inlets: Vec<(ChannelKey, ChannelSender)>,
    pub grant_signal: Arc<GateSignal>,
}

/// What a peer's bytes lead to outside the link.
#[derive(Clone, PartialEq, Debug)]
pub enum LinkEvent {
    /// The peer does not serve a channel.
    Refused {
        generation: Generation,
        reason: String,
    },
    Coordinator(CoordinatorEvent),
}

/// The peer has said something that it may not; the connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("channel {channel}: {broken}")]
    Channel { channel: u32, broken: Broken },
    #[error("it speaks of channel {0}, which was never opened")]
    UnknownChannel(u32),
    #[error("it calls itself {said:?} of job {job}, and should be {expected:?} of job {expected_job}")]
    OtherPeer { said: WorkerId, job: JobId, expected: WorkerId, expected_job: JobId },
    #[error("it has not greeted, or has greeted twice")]
    Greeting,
    #[error("it is ahead of this side by more than {EARLY_MAX} channels and events")]
    TooEager,
    #[error("it sends on {stream:?} where shuffle.quic.lanes is {lanes}: both sides take it from the job")]
    OtherLanes { stream: Stream, lanes: u8 },
    #[error("a frame of channel {channel} came on the stream of channel {of}")]
    OtherChannel { channel: u32, of: u32 },
}

/// The state of one connection.
pub struct Link {
    local: Local,
    peer: WorkerId,
    control: Gather,
    lanes: Lanes,
    /// Of the streams that were used; those of channels until they are closed here.
    decoders: HashMap<Stream, Decoder>,
    core: Core,
}

/// What frames act upon.
struct Core {
    local: Local,
    peer: WorkerId,
    greeted: bool,
    deployments: BTreeMap<Generation, Channels>,
    /// The newest that was ever attached.
    newest: Generation,
    /// Which outlet the peer means by its numbers.
    outlets: HashMap<u32, (Generation, usize)>,
    /// Asked for before they were attached.
    early: HashMap<(Generation, ChannelKey), Open>,
    early_events: Vec<CoordinatorEvent>,
    next_channel: u32,
    events: Vec<LinkEvent>,
    answers: Vec<Message>,
    /// The channel whose own stream the next bytes are of, if there are such streams.
    arriving: Option<u32>,
    /// Outlets whose streams end, where each has its own.
    ended: Vec<u32>,
}

struct Channels {
    token: ChannelToken,
    outlets: Outlets,
    by_key: HashMap<ChannelKey, usize>,
    inlets: Inlets,
}

impl Link {
    /// A link whose first words are queued.
    pub fn new(local: Local, peer: WorkerId) -> Link {
        let mut control = Gather::default();
        control.message(&Message::Hello(Hello { version: PROTOCOL_VERSION, job: local.job, worker: local.worker }));
        let lanes = Lanes::new(local.lanes);
        let core = Core {
            local: local.clone(),
            peer,
            greeted: false,
            deployments: BTreeMap::new(),
            newest: Generation(0),
            outlets: HashMap::new(),
            early: HashMap::new(),
            early_events: Vec::new(),
            next_channel: 1,
            events: Vec::new(),
            answers: Vec::new(),
            arriving: None,
            ended: Vec::new(),
        };
        Link { local, peer, control, lanes, decoders: HashMap::new(), core }
    }

    pub fn peer(&self) -> WorkerId {
        self.peer
    }

    /// Adds the channels of a deployment: asks the peer for those into this worker, and serves those out of it once they
    /// are asked for.
    pub fn attach(&mut self, channels: PeerChannels) {
        let PeerChannels { generation, token, outlets, outlet_signal, inlets, grant_signal } = channels;
        let core = &mut self.core;
        core.newest = core.newest.max(generation);
        let by_key = outlets.iter().enumerate().map(|(index, (key, _))| (*key, index)).collect();
        let (keys, receivers) = outlets.into_iter().unzip();
        let outlets = Outlets::new(keys, receivers, outlet_signal);
        let (keys, senders) = inlets.into_iter().unzip();
        let inlets = Inlets::new(keys, senders, grant_signal, core.next_channel);
        core.next_channel += inlets.len() as u32;
        for (channel, key, segment_bytes, granted, is_lent) in inlets.requests() {
            let open = Open { channel, generation, token, key, codec: Codec::Row, segment_bytes, granted, is_lent };
            self.control.message(&Message::Open(open));
        }
        core.deployments.insert(generation, Channels { token, outlets, by_key, inlets });
        let early: Vec<_> = core.early.extract_if(|(of, _), _| *of <= generation).map(|(_, open)| open).collect();
        early.into_iter().for_each(|open| core.on_open(open));
        let events = core.early_events.extract_if(.., |event| event.generation <= generation);
        core.events.extend(events.map(LinkEvent::Coordinator));
        self.say_answers();
    }

    /// Forgets the channels of a deployment, and tells the peer. Those of other regions, older or newer, stay.
    pub fn detach(&mut self, generation: Generation) {
        let core = &mut self.core;
        if let Some(channels) = core.deployments.remove(&generation) {
            let first = channels.inlets.first_channel;
            for channel in first..first + channels.inlets.len() as u32 {
                self.control.message(&Message::Close { channel });
                self.decoders.remove(&Stream::Channel(channel));
            }
        }
        let ended = core.outlets.extract_if(|_, (of, _)| *of == generation).map(|(channel, _)| channel);
        core.ended.extend(ended);
        core.early.retain(|(of, _), _| *of != generation);
    }

    /// The deployments that use this link.
    pub fn generations(&self) -> impl Iterator<Item = Generation> {
        self.core.deployments.keys().copied()
    }

    /// Says something to the peer's coordinators or subtasks.
    pub fn send(&mut self, event: CoordinatorEvent) {
        self.control.message(&Message::Event(event));
    }

    /// Takes in what has arrived.
    ///
    /// # Errors
    /// If the peer breaks the rules; the link is of no use after that.
    pub fn on_bytes(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Violation> {
        self.core.arriving = match stream {
            Stream::Control => None,
            Stream::Lane(lane) if lane < self.local.lanes => None,
            Stream::Channel(channel) if self.lanes.are_channels() => {
                if self.core.inlet(channel)?.is_none() {
                    // What was under way when it was closed is on no other stream, and of no use.
                    return Ok(());
                }
                Some(channel)
            }
            Stream::Lane(_) | Stream::Channel(_) => {
                return Err(Violation::OtherLanes { stream, lanes: self.local.lanes });
            }
        };
        let decoder = self.decoders.entry(stream).or_default();
        let fed = decoder.feed(bytes, stream == Stream::Control, &mut self.core);
        self.say_answers();
        fed
    }

    fn say_answers(&mut self) {
        self.core.answers.drain(..).for_each(|answer| self.control.message(&answer));
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<LinkEvent> {
        std::mem::take(&mut self.core.events)
    }

    /// Hands over everything that can go: control first, then data in turns, as far as there is credit and `room`.
    pub fn pump(&mut self, room: impl Fn(Stream) -> usize, mut hand_over: impl FnMut(Stream, Batch)) {
        for channels in self.core.deployments.values_mut() {
            channels.inlets.take_grants(|grant| self.control.message(&grant));
        }
        for channels in self.core.deployments.values_mut() {
            channels.outlets.pump(&mut self.lanes, &room, |backlog| self.control.message(&backlog));
        }
        if self.control.bytes() > 0 {
            hand_over(Stream::Control, self.control.take());
        }
        self.lanes.take(hand_over);
    }

    /// Channels on whose own streams nothing follows what was handed over.
    pub fn take_ended(&mut self) -> impl Iterator<Item = u32> {
        let has_streams = self.lanes.are_channels();
        self.core.ended.drain(..).filter(move |_| has_streams)
    }

    /// How many channels come from the peer.
    pub fn inlet_count(&self) -> u32 {
        self.core.deployments.values().map(|channels| channels.inlets.len() as u32).sum()
    }

    /// Whether a channel has something to send and no credit for it.
    pub fn is_starved(&self) -> bool {
        self.core.deployments.values().any(|channels| channels.outlets.is_starved())
    }

    /// Bytes that wait here for credit or room, about.
    pub fn backlog(&mut self) -> u64 {
        self.core.deployments.values_mut().map(|channels| channels.outlets.backlog()).sum()
    }

    /// Room that the peer has granted, and what was used of it, in bytes.
    pub fn credit(&self) -> (u64, u64) {
        let each = self.core.deployments.values().map(|channels| channels.outlets.credit());
        each.fold((0, 0), |(granted, spent), (more, used)| (granted + more, spent + used))
    }
}

impl Core {
    /// The inlet that the peer means. `None` if it has been closed meanwhile.
    fn inlet(&mut self, channel: u32) -> Result<Option<(&mut Inlets, usize)>, Violation> {
        if channel == 0 || channel >= self.next_channel {
            return Err(Violation::UnknownChannel(channel));
        }
        Ok(self.deployments.values_mut().find_map(|channels| {
            let index = channel.checked_sub(channels.inlets.first_channel)? as usize;
            (index < channels.inlets.len()).then_some((&mut channels.inlets, index))
        }))
    }

    fn on_hello(&mut self, hello: Hello) -> Result<(), Violation> {
        let Hello { job, worker, .. } = hello;
        if (job, worker) != (self.local.job, self.peer) {
            let (expected, expected_job) = (self.peer, self.local.job);
            return Err(Violation::OtherPeer { said: worker, job, expected, expected_job });
        }
        if std::mem::replace(&mut self.greeted, true) { Err(Violation::Greeting) } else { Ok(()) }
    }

    fn on_open(&mut self, open: Open) {
        let Open { channel, generation, token, key, codec: Codec::Row, segment_bytes, granted, is_lent } = open;
        let refused = |reason: String| Message::Refused { channel, reason };
        let Some(channels) = self.deployments.get_mut(&generation) else {
            if generation > self.newest {
                self.early.insert((generation, key), open);
            } else {
                self.answers.push(refused(format!("deployment {} has ended here", generation.0)));
            }
            return;
        };
        let answer = if channels.token != token {
            refused("the token of the deployment is another one".to_owned())
        } else if let Some(index) = channels.by_key.get(&key).copied() {
            let own = channels.outlets.segment_bytes(index);
            if u64::from(segment_bytes) != own {
                refused(format!("segments have {segment_bytes} bytes there and {own} here"))
            } else if is_lent && !channels.outlets.ends_at_flush(index) {
                refused(format!("{key:?} has no floor there, and its segments do not end with each flush here"))
            } else if channels.outlets.open(index, channel, granted, is_lent) {
                self.outlets.insert(channel, (generation, index));
                return;
            } else {
                refused(format!("{key:?} was asked for twice"))
            }
        } else {
            refused(format!("{key:?} does not begin at this worker"))
        };
        self.answers.push(answer);
    }

    /// The outlet that the peer means; `None` if its deployment has ended.
    fn outlet(&mut self, channel: u32) -> Option<(&mut Outlets, usize)> {
        let (generation, index) = *self.outlets.get(&channel)?;
        Some((&mut self.deployments.get_mut(&generation)?.outlets, index))
    }
}

impl FrameSink for Core {
    type Error = Violation;

    fn data_begins(&mut self, header: Header) -> Result<(), Violation> {
        let Header { channel, opens_segment, ends_segment, length, .. } = header;
        if let Some(of) = self.arriving.filter(|of| *of != channel) {
            return Err(Violation::OtherChannel { channel, of });
        }
        let Some((inlets, index)) = self.inlet(channel)? else { return Ok(()) };
        let begun = inlets.begin(index, opens_segment, ends_segment, length as usize);
        begun.map_err(|broken| Violation::Channel { channel, broken })
    }

    fn data(&mut self, channel: u32, bytes: &[u8]) {
        if let Ok(Some((inlets, index))) = self.inlet(channel) {
            inlets.write(index, bytes);
        }
    }

    fn data_ends(&mut self, channel: u32) {
        if let Ok(Some((inlets, index))) = self.inlet(channel) {
            inlets.end(index);
        }
    }

    fn message(&mut self, message: Message) -> Result<(), Violation> {
        if !self.greeted && !matches!(message, Message::Hello(_)) {
            return Err(Violation::Greeting);
        }
        match message {
            Message::Hello(hello) => self.on_hello(hello)?,
            Message::Open(_) | Message::Event(_) if self.early.len() + self.early_events.len() >= EARLY_MAX => {
                return Err(Violation::TooEager);
            }
            Message::Open(open) => self.on_open(open),
            Message::Refused { channel, reason } => {
                let generation = self.deployments.iter().find_map(|(generation, channels)| {
                    let index = channel.checked_sub(channels.inlets.first_channel)? as usize;
                    (index < channels.inlets.len()).then_some(*generation)
                });
                if let Some(generation) = generation {
                    self.events.push(LinkEvent::Refused { generation, reason });
                }
            }
            Message::Grant { channel, total, share } => {
                if let Some((outlets, index)) = self.outlet(channel) {
                    outlets.grant(index, total, share);
                }
            }
            Message::Backlog { channel, total } => {
                if let Some((inlets, index)) = self.inlet(channel)? {
                    inlets.announce(index, total);
                }
            }
            Message::Close { channel } => {
                if let Some((outlets, index)) = self.outlet(channel) {
                    outlets.close(index);
                }
                self.ended.extend(self.outlets.remove(&channel).map(|_| channel));
            }
            // Its deployment is on its way.
            Message::Event(event) if event.generation > self.newest => self.early_events.push(event),
            Message::Event(event) => self.events.push(LinkEvent::Coordinator(event)),
        }
        Ok(())
    }
}
