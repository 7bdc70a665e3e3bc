//! The host's disk service, and the medium under it. All in one thread: a request is answered while it is written.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use newton_relay::disk::{
    Duplex, MAX_BODY, Reply, Request, SlotRange, decode_request, encode_reply,
};
use newton_relay::{ErrorCode, HostError, read_frame, write_frame};

use crate::plan::{Disk as Fault, Restart};
use crate::random::Random;

/// Bytes of a slot.
pub const SLOT: usize = newton_pages::SLOT_BYTES;
/// Older files that are kept to roll back to.
const HISTORY: usize = 6;

/// The host's side. Clones share it.
#[derive(Clone)]
pub struct Host(Arc<Mutex<Disk>>);

/// What the host holds and does.
pub struct Disk {
    file: Vec<u8>,
    stable: Vec<u8>,
    unflushed: Vec<Change>,
    /// True if the file was changed by more than `unflushed`.
    bent: bool,
    history: Vec<Vec<u8>>,
    flushes: u64,
    requests: u64,
    faults: BTreeMap<u64, (Fault, u64)>,
    /// Faults that took place.
    pub injected: Vec<String>,
    /// True once the medium did something that no honest one does.
    pub broken: bool,
    dead: bool,
    needles: Vec<Vec<u8>>,
    /// Secrets that were found in what the enclave sent.
    pub leaks: Vec<String>,
    /// Hash of every request: two runs of one seed have the same.
    pub trace: u64,
}

enum Change {
    Write { slot: usize, data: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { slot, data } => put(file, *slot, data),
            Self::Length(len) => file.resize(*len, 0),
        }
    }
}

impl Host {
    /// An empty file, faults by request number, and what must not be seen.
    #[must_use]
    pub fn new(faults: BTreeMap<u64, (Fault, u64)>, needles: Vec<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            file: Vec::new(),
            stable: Vec::new(),
            unflushed: Vec::new(),
            bent: false,
            history: Vec::new(),
            flushes: 0,
            requests: 0,
            faults,
            injected: Vec::new(),
            broken: false,
            dead: false,
            needles,
            leaks: Vec::new(),
            trace: 0,
        })))
    }

    /// What it holds.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection.
    #[must_use]
    pub fn connect(&self) -> Box<dyn Duplex> {
        Box::new(Connection {
            host: self.clone(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            ended: false,
            held: None,
            slot_bytes: 1,
        })
    }

    /// Looks for secrets in bytes that the enclave sent.
    pub fn look_at(&self, what: &str, bytes: &[u8]) {
        self.disk().look_at(what, bytes);
    }
}

impl Disk {
    /// Whether the enclave was killed and does not know yet.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// No more faults from here on.
    pub fn behave(&mut self) {
        self.faults.clear();
    }

    /// A new boot can connect again.
    pub fn revive(&mut self) {
        self.dead = false;
    }

    /// Takes the file away, as an operator does with one that is refused.
    pub fn remove_file(&mut self) {
        self.file.clear();
        self.stable.clear();
        self.unflushed.clear();
    }

    /// What happens between two boots. False if there was nothing to do it to.
    pub fn restart(&mut self, kind: Restart, dice: u64) -> bool {
        let mut random = Random::of(dice, 2);
        if self.file.len() < 6 * SLOT && kind != Restart::Clean {
            return false;
        }
        let slots = self.file.len() / SLOT;
        match kind {
            Restart::Clean => {}
            Restart::PowerCut => self.power_cut(&mut random),
            Restart::Grow => {
                let more = random.below(3 * SLOT as u64) as usize;
                self.file.resize(self.file.len() + more, 0xdd);
            }
            Restart::RollBack => {
                if self.history.is_empty() {
                    return false;
                }
                let at = random.below(self.history.len() as u64) as usize;
                self.file = self.history[at].clone();
            }
            Restart::CorruptSlot => {
                let at = random.below((slots * SLOT) as u64) as usize;
                self.file[at] ^= 1 << random.below(8);
            }
            Restart::CorruptSuperblock => {
                let at = random.below(4) as usize * SLOT + random.below(310) as usize;
                self.file[at] ^= 1 << random.below(8);
            }
            Restart::ZeroSlot => {
                let at = random.below(slots as u64) as usize * SLOT;
                self.file[at..at + SLOT].fill(0);
            }
            Restart::SwapSlots => self.swap(&mut random),
            Restart::OldSlot => self.old_slot(&mut random),
            Restart::Cut => {
                let to = random.below(self.file.len() as u64) as usize;
                self.file.truncate(to);
            }
            Restart::Empty => self.file.clear(),
            Restart::Foreign => {
                self.file = (0..5 * SLOT).map(|_| random.draw() as u8).collect();
            }
        }
        self.settle();
        self.broken |= kind.breaks_medium();
        true
    }

    /// Of what was not flushed, any part, and one write torn.
    fn power_cut(&mut self, random: &mut Random) {
        let mut file = std::mem::take(&mut self.stable);
        let unflushed = std::mem::take(&mut self.unflushed);
        let torn = random.below(unflushed.len() as u64 + 1) as usize;
        for (i, change) in unflushed.iter().enumerate() {
            match change {
                Change::Length(len) if random.one_in(2) => file.resize(*len, 0),
                Change::Write { slot, data } if i == torn => {
                    let cut = random.below(data.len() as u64) as usize;
                    put(&mut file, *slot, &data[..cut]);
                }
                Change::Write { slot, data } if random.one_in(2) => put(&mut file, *slot, data),
                _ => {}
            }
        }
        // A write past the end that was torn leaves a slot of zeros behind its bytes.
        file.resize(file.len().next_multiple_of(SLOT), 0);
        self.file = file;
        self.settle();
    }

    /// Whatever stands there now, stands on the medium.
    fn settle(&mut self) {
        self.stable.clone_from(&self.file);
        self.unflushed.clear();
        self.bent = false;
    }

    fn swap(&mut self, random: &mut Random) {
        let slots = (self.file.len() / SLOT) as u64;
        let (a, b) = (random.below(slots) as usize, random.below(slots) as usize);
        let one = self.file[a * SLOT..(a + 1) * SLOT].to_vec();
        self.file.copy_within(b * SLOT..(b + 1) * SLOT, a * SLOT);
        put(&mut self.file, b, &one);
    }

    fn old_slot(&mut self, random: &mut Random) {
        if self.history.is_empty() {
            return;
        }
        let at = random.below(self.history.len() as u64) as usize;
        let old = &self.history[at];
        let slots = old.len().min(self.file.len()) / SLOT;
        let slot = random.below(slots.max(1) as u64) as usize;
        if let Some(bytes) = old.get(slot * SLOT..(slot + 1) * SLOT) {
            let bytes = bytes.to_vec();
            put(&mut self.file, slot, &bytes);
        }
    }

    fn look_at(&mut self, what: &str, bytes: &[u8]) {
        for needle in &self.needles {
            if memmem::find(bytes, needle).is_some() {
                self.leaks.push(format!("a secret is in {what}"));
            }
        }
    }

    fn note(&mut self, request: &Request<'_>) {
        let mut mix = |value: u64| {
            self.trace = (self.trace ^ value)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        };
        match request {
            Request::Hello { .. } => mix(1),
            Request::Read { ranges } => ranges
                .iter()
                .for_each(|r| mix(r.first << 20 | u64::from(r.count) << 4 | 2)),
            Request::Write { runs } => runs
                .iter()
                .for_each(|r| mix(r.first << 20 | (r.data.len() as u64) << 4 | 3)),
            Request::Flush => mix(4),
            Request::Len => mix(5),
            Request::SetLen { slots } => mix(slots << 4 | 6),
        }
    }

    fn write(&mut self, slot: usize, data: &[u8]) {
        put(&mut self.file, slot, data);
        self.unflushed.push(Change::Write {
            slot,
            data: data.to_vec(),
        });
    }

    /// Does what is asked; only the first `part` slots of a write.
    fn execute(&mut self, request: &Request<'_>, part: usize, data: &mut Vec<u8>) -> Answer {
        match request {
            Request::Hello { .. } => {}
            Request::Read { ranges } => {
                let Some(bytes) = read(&self.file, ranges) else {
                    return Answer::Failed(ErrorCode::OutOfRange);
                };
                *data = bytes;
                return Answer::Data;
            }
            Request::Write { runs } => {
                let slots = runs.iter().flat_map(|run| {
                    run.data
                        .chunks(SLOT)
                        .enumerate()
                        .map(|(i, bytes)| (run.first as usize + i, bytes))
                });
                for (slot, bytes) in slots.take(part) {
                    self.write(slot, bytes);
                }
            }
            Request::Flush => {
                let unflushed = std::mem::take(&mut self.unflushed);
                if std::mem::take(&mut self.bent) {
                    self.stable.clone_from(&self.file);
                } else {
                    for change in &unflushed {
                        change.apply(&mut self.stable);
                    }
                }
                self.flushes += 1;
                if self.flushes.is_multiple_of(3) {
                    if self.history.len() == HISTORY {
                        self.history.remove((self.flushes / 3) as usize % HISTORY);
                    }
                    self.history.push(self.file.clone());
                }
            }
            Request::Len => return Answer::Len(self.file.len() as u64),
            Request::SetLen { slots } => {
                let len = *slots as usize * SLOT;
                self.file.resize(len, 0);
                self.unflushed.push(Change::Length(len));
            }
        }
        Answer::Done
    }

    /// Does what the fault asks of the medium before the request is handled; false if the fault does not fit the request.
    fn before(&mut self, fault: Fault, dice: u64, request: &Request<'_>) -> bool {
        let mut random = Random::of(dice, 3);
        self.bent = true;
        let reads = matches!(request, Request::Read { .. });
        let writes = matches!(request, Request::Write { .. });
        let has_file = self.file.len() >= 6 * SLOT;
        match fault {
            Fault::ShortRead | Fault::CorruptRead | Fault::SwapRead => reads,
            Fault::StaleRead => reads && !self.history.is_empty(),
            Fault::DropWrite | Fault::TearWrite => writes,
            Fault::PowerCut => writes || matches!(request, Request::Flush),
            Fault::LieFlush => matches!(request, Request::Flush),
            Fault::LieLength => matches!(request, Request::Len),
            Fault::GrowFile if has_file => {
                self.file.resize(self.file.len() + SLOT, 0xdd);
                true
            }
            Fault::RollBack if !self.history.is_empty() => {
                let at = random.below(self.history.len() as u64) as usize;
                self.file = self.history[at].clone();
                true
            }
            Fault::CorruptSlot if has_file => {
                let at = random.below(self.file.len() as u64) as usize;
                self.file[at] ^= 1 << random.below(8);
                true
            }
            Fault::SwapSlots if has_file => {
                self.swap(&mut random);
                true
            }
            Fault::OldSlot if has_file && !self.history.is_empty() => {
                self.old_slot(&mut random);
                true
            }
            Fault::CutFile if has_file => {
                let to = random.below(self.file.len() as u64) as usize;
                self.file.truncate(to);
                true
            }
            Fault::RollBack
            | Fault::CorruptSlot
            | Fault::SwapSlots
            | Fault::OldSlot
            | Fault::CutFile
            | Fault::GrowFile => false,
            _ => true,
        }
    }
}

enum Answer {
    Done,
    Data,
    Len(u64),
    Failed(ErrorCode),
}

fn put(file: &mut Vec<u8>, slot: usize, data: &[u8]) {
    let at = slot * SLOT;
    if file.len() < at + data.len() {
        file.resize(at + data.len(), 0);
    }
    file[at..at + data.len()].copy_from_slice(data);
}

fn read(file: &[u8], ranges: &[SlotRange]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for range in ranges {
        let at = range.first as usize * SLOT;
        data.extend_from_slice(file.get(at..at + range.count as usize * SLOT)?);
    }
    Some(data)
}

struct Connection {
    host: Host,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    ended: bool,
    held: Option<Vec<u8>>,
    slot_bytes: u32,
}

impl Connection {
    fn handle(&mut self, body: &[u8]) {
        let host = self.host.clone();
        let mut disk = host.disk();
        let Ok((id, request)) = decode_request(body, self.slot_bytes) else {
            disk.leaks.push("a request that does not decode".into());
            self.ended = true;
            return;
        };
        if disk.dead {
            // The process is gone. What is left of it in this test is made to give up.
            self.answer(&frame(id, &Reply::Done, true));
            return;
        }
        disk.look_at("a disk request", body);
        disk.note(&request);
        if let Request::Hello { slot_bytes, .. } = request {
            self.slot_bytes = slot_bytes;
            self.answer(&frame(id, &Reply::Done, false));
            return;
        }
        let number = disk.requests;
        disk.requests += 1;
        // A fault that does not fit waits for the next request.
        let due = disk.faults.iter().next().map(|(at, fault)| (*at, *fault));
        let mut fault = due.filter(|(at, _)| *at <= number);
        if let Some((at, (kind, dice))) = fault {
            if disk.before(kind, dice, &request) {
                disk.faults.remove(&at);
                disk.injected.push(format!("disk.{kind:?}"));
                disk.broken |= kind.breaks_medium() || hides_superblocks(kind, &request);
            } else {
                fault = None;
            }
        }
        match fault {
            None => {
                let reply = self.honest(&mut disk, id, &request);
                self.answer(&reply);
            }
            Some((_, (kind, dice))) => self.bend(&mut disk, kind, dice, id, &request),
        }
    }

    fn honest(&self, disk: &mut Disk, id: u64, request: &Request<'_>) -> Vec<u8> {
        let mut data = Vec::new();
        let answer = disk.execute(request, usize::MAX, &mut data);
        encode(id, &answer, &data)
    }

    fn bend(&mut self, disk: &mut Disk, kind: Fault, dice: u64, id: u64, request: &Request<'_>) {
        let mut random = Random::of(dice, 4);
        let slots = match request {
            Request::Write { runs } => runs.iter().map(|run| run.data.len() / SLOT).sum(),
            _ => 1,
        };
        let part = random.below(slots as u64) as usize;
        let mut data = Vec::new();
        match kind {
            Fault::HangUp => self.ended = true,
            Fault::LoseReply => {
                disk.execute(request, usize::MAX, &mut data);
                self.ended = true;
            }
            Fault::Kill => {
                if matches!(request, Request::Write { .. }) {
                    disk.execute(request, part, &mut data);
                }
                disk.dead = true;
                self.answer(&frame(id, &Reply::Done, true));
            }
            Fault::PowerCut => {
                if matches!(request, Request::Write { .. }) {
                    disk.execute(request, usize::MAX, &mut data);
                }
                disk.power_cut(&mut random);
                disk.dead = true;
                self.answer(&frame(id, &Reply::Done, true));
            }
            Fault::NoSpace | Fault::IoError => {
                if kind == Fault::IoError && matches!(request, Request::Write { .. }) {
                    disk.execute(request, part, &mut data);
                }
                let code = match kind {
                    Fault::NoSpace => ErrorCode::NoSpace,
                    _ => ErrorCode::Io,
                };
                self.answer(&encode(id, &Answer::Failed(code), &[]));
            }
            Fault::DropWrite | Fault::LieFlush => self.answer(&frame(id, &Reply::Done, false)),
            Fault::TearWrite => {
                disk.execute(request, part, &mut data);
                self.answer(&frame(id, &Reply::Done, false));
            }
            Fault::LieLength => {
                let lie = random.pick(&[0, 1, 4, 5, 1 << 40]) * SLOT as u64 / 2;
                self.answer(&frame(id, &Reply::Len(lie), false));
            }
            Fault::WrongReply => {
                disk.execute(request, usize::MAX, &mut data);
                let wrong = match request {
                    Request::Read { .. } => Reply::Done,
                    _ => Reply::Data(b"what?"),
                };
                self.answer(&frame(id, &wrong, false));
            }
            Fault::ShortRead | Fault::CorruptRead | Fault::StaleRead | Fault::SwapRead => {
                let answer = disk.execute(request, usize::MAX, &mut data);
                match kind {
                    Fault::ShortRead => data.truncate(data.len().saturating_sub(SLOT)),
                    Fault::CorruptRead if !data.is_empty() => {
                        let at = random.below(data.len() as u64) as usize;
                        data[at] ^= 1 << random.below(8);
                    }
                    Fault::SwapRead if data.len() > SLOT => data.rotate_left(SLOT),
                    Fault::StaleRead => {
                        let at = random.below(disk.history.len().max(1) as u64) as usize;
                        if let (Request::Read { ranges }, Some(old)) =
                            (request, disk.history.get(at))
                            && let Some(old) = read(old, ranges)
                        {
                            data = old;
                        }
                    }
                    _ => {}
                }
                self.answer(&encode(id, &answer, &data));
            }
            Fault::DamageReply => {
                let mut reply = self.honest(disk, id, request);
                if let Some(last) = reply.last_mut() {
                    *last ^= 1;
                }
                self.answer(&reply);
            }
            Fault::CutReply => {
                let reply = self.honest(disk, id, request);
                self.answer(&reply[..reply.len() / 2]);
                self.ended = true;
            }
            Fault::RepeatReply => {
                let reply = self.honest(disk, id, request);
                self.answer(&reply);
                self.answer(&reply);
            }
            Fault::ReorderReply => {
                let reply = self.honest(disk, id, request);
                self.held = Some(reply);
            }
            // What these do was done to the file.
            Fault::GrowFile
            | Fault::RollBack
            | Fault::CorruptSlot
            | Fault::SwapSlots
            | Fault::OldSlot
            | Fault::CutFile => {
                let reply = self.honest(disk, id, request);
                self.answer(&reply);
            }
        }
    }

    fn answer(&mut self, frame: &[u8]) {
        self.outgoing.extend_from_slice(frame);
        if let Some(held) = self.held.take() {
            self.outgoing.extend(held);
        }
    }
}

fn encode(id: u64, answer: &Answer, data: &[u8]) -> Vec<u8> {
    let reply = match answer {
        Answer::Done => Reply::Done,
        Answer::Data => Reply::Data(data),
        Answer::Len(len) => Reply::Len(*len),
        Answer::Failed(code) => Reply::Failed(HostError::new(*code, "as planned")),
    };
    frame(id, &reply, false)
}

/// A frame, whose checksum can be wrong.
fn frame(id: u64, reply: &Reply<'_>, damaged: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let body = encode_reply(id, reply).unwrap_or_default();
    // Into memory, and below the limit.
    let _ = write_frame(&mut out, &body, MAX_BODY);
    if damaged && let Some(last) = out.last_mut() {
        *last ^= 1;
    }
    out
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.incoming.extend_from_slice(bytes);
        loop {
            let incoming = std::mem::take(&mut self.incoming);
            let mut rest = incoming.as_slice();
            match read_frame(&mut rest, MAX_BODY) {
                Ok(Some(body)) if !self.ended => {
                    self.incoming = rest.to_vec();
                    self.handle(&body);
                }
                // Not whole yet.
                _ => {
                    self.incoming = incoming;
                    return Ok(bytes.len());
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.outgoing[self.sent..];
        if rest.is_empty() {
            // An answer that does not come, and an end.
            return if self.ended {
                Ok(0)
            } else {
                Err(io::ErrorKind::TimedOut.into())
            };
        }
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.sent += n;
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        Ok(n)
    }
}

/// Whether an opening is shown former superblocks: a rollback between runs, which no store can tell from the truth (`docs/storage.md`).
fn hides_superblocks(kind: Fault, request: &Request<'_>) -> bool {
    matches!((kind, request), (Fault::StaleRead, Request::Read { ranges })
        if ranges.iter().any(|range| range.first < 4))
}
