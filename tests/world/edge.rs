//! A gateway that takes its updates from another one, over a pipe: the real conversation, and shards of its own. Or one that
//! numbers anew what it is told.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;
use tickgate::flow::adapter::Sink;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::conflation::hub::Hub;
use tickgate::flow::conflation::log::What;
use tickgate::flow::dispatch::wish::{Packing, Style};
use tickgate::flow::frame::row::{Shape, encode_image};
use tickgate::flow::frame::text::Text;
use tickgate::flow::socket::wire::Newcomer;
use tickgate::gateway::ingest::Ingest;
use tickgate::gateway::rest::form::Form;
use tickgate::gateway::rest::listing;
use tickgate::gateway::shard::{Identity, Shard};
use tickgate_feeds::market::{Channel, FeedId, Symbol};
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::tickgate::{Directory, Heard, Peer, Plan, Retelling};

use super::history::History;
use super::wire::{Pipe, SharedPipe, SimIo, SimWire, TEXT, client_frame, next_frame};

const SPEC: &str = "tickgate:ws://upstream?books=1000&bars=1s";
const SHARDS: usize = 2;
/// What the kernel holds between an edge and its upstream: not enough for a whole picture.
const ROOM: usize = 3_000;

pub struct Edge {
    pub shards: Vec<(Shard<SimIo>, SimIo)>,
    symbols: Arc<Symbols>,
    ingest: Arc<Ingest>,
    peer: Peer,
    /// Of one with an epoch of its own.
    retelling: Option<Retelling>,
    pipe: SharedPipe,
    pending: Vec<u8>,
    is_ready: bool,
    has_lost: bool,
    links: u64,
}

impl Edge {
    /// A gateway of this name, connected to one of these shards.
    pub fn connect(name: &str, upstream: &mut [(Shard<SimIo>, SimIo)], random: &mut Rng) -> Self {
        let plan = Plan::from_spec(&Spec::parse(SPEC).expect("a spec")).expect("a plan");
        let symbols = Arc::new(Symbols::new(1_000));
        let limits = super::tight();
        let wakers = (0..SHARDS).map(|_| Box::new(|| ()) as Box<dyn Fn() + Send + Sync>).collect();
        let ingest = Ingest::new(Arc::clone(&symbols), Node::new(name, name), &limits, wakers);
        let mut edge = Self {
            shards: Vec::new(),
            symbols,
            ingest: Arc::new(ingest),
            peer: Peer::new(plan, FeedId(0), name.to_owned()),
            retelling: None,
            pipe: SharedPipe::default(),
            pending: Vec::new(),
            is_ready: false,
            has_lost: false,
            links: 0,
        };
        edge.reconnect(upstream, random);
        edge
    }

    /// The same, but it has an epoch of its own.
    pub fn beside(upstream: &mut [(Shard<SimIo>, SimIo)], random: &mut Rng) -> Self {
        let edge = Self::connect("beside", upstream, random);
        Self { retelling: Some(Retelling::new(Arc::clone(&edge.symbols))), ..edge }
    }

    /// Whether it has a whole picture and serves.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether it needs another connection.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// How many connections it made.
    pub fn links(&self) -> u64 {
        self.links
    }

    /// Gives up the connection for one to any of these shards.
    pub fn reconnect(&mut self, upstream: &mut [(Shard<SimIo>, SimIo)], random: &mut Rng) {
        self.pipe.borrow_mut().close();
        self.peer.disconnected();
        self.pending.clear();
        self.pipe = Rc::new(RefCell::new(Pipe::new(ROOM)));
        self.links += 1;
        self.has_lost = false;
        upstream[random.usize(..upstream.len())].1.newcomers.push(Newcomer {
            wire: SimWire(Rc::clone(&self.pipe)),
            peer: ([127, 0, 0, 1], 2).into(),
            head: Vec::new(),
            asked: Ok(None),
            packing: Packing::default(),
        });
    }

    /// Hears as many bytes; groups are those of the source.
    pub fn listen(&mut self, bytes: usize, source: &Arc<Symbols>, mono_ns: u64) {
        let heard = self.pipe.borrow_mut().take(bytes);
        self.pending.extend_from_slice(&heard);
        while let Some((opcode, mut payload)) = next_frame(&mut self.pending) {
            if opcode != 1 {
                self.pipe.borrow_mut().send(&[0x8a, 0x80, 0, 0, 0, 0]);
                continue;
            }
            match self.peer.hear(&mut payload).expect("what a gateway says is understood") {
                Heard::Nothing => {}
                Heard::Say(command) => self.pipe.borrow_mut().send(&client_frame(TEXT, &command)),
                Heard::Whole => self.take_over(source, mono_ns),
                Heard::Again(why) => {
                    // Only that the upstream, an edge itself, is behind what this one had from another shard of it.
                    assert!(why.contains("node_behind"), "{why}");
                    self.has_lost = true;
                    return;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn take_over(&mut self, source: &Arc<Symbols>, mono_ns: u64) {
        let whole =
            |parts: Box<dyn Iterator<Item = bytes::Bytes> + Send>| parts.flatten().collect::<Vec<u8>>();
        if !self.is_ready {
            let listed = listing::symbols("", Form::Json, source, &Arc::default());
            let groups = listing::groups("", Form::Json, source);
            let (mut listed, mut groups) = (whole(listed.expect("all")), whole(groups.expect("all")));
            let directory = Directory::read(&mut listed, &mut groups).expect("lists");
            self.peer.told().directory = Some(directory);
        }
        match &mut self.retelling {
            None => self.ingest.adopt(self.peer.told(), mono_ns),
            Some(retelling) => retelling.tell(self.peer.told(), &mut |updates| {
                let held = self.ingest.with_hub(|hub| hub.rev());
                self.ingest.push(updates);
                self.ingest.with_hub(|hub| check_numbers(hub, held));
            }),
        }
        if !std::mem::replace(&mut self.is_ready, true) {
            let identity = Arc::new(Identity { simulated: true, limits: super::tight() });
            let shard = |index| Shard::new(index, Arc::clone(&identity), Arc::clone(&self.ingest));
            self.shards = (0..SHARDS).map(|index| (shard(index), SimIo::default())).collect();
        }
    }

    /// It holds what the source holds, and of each topic of trades as many, lost ones included. Returns how many it lost.
    pub fn check_retold(&self, source: &Ingest) -> u64 {
        assert_eq!(self.symbols.len(), source.symbols().len(), "every symbol");
        self.ingest.with_hub(|here| {
            source.with_hub(|there| {
                for at in 0..self.symbols.len() as u32 {
                    let own = Symbol::at(at);
                    let name = self.symbols.listing(own).expect("listed").name;
                    let its = source.symbols().find(&name).expect("listed");
                    for number in 0..here.images().cells(own).len() as u8 {
                        let values = [(here.images(), own), (there.images(), its)].map(|(images, symbol)| {
                            images.value(symbol, number).map(|value| value.serialize())
                        });
                        assert_eq!(values[0], values[1], "field {number} of {name}");
                    }
                    let times =
                        [here.images().head(own), there.images().head(its)].map(|head| head.time.us());
                    // What changed and came back between two rows has not changed here.
                    assert!(times[0] <= times[1], "the time of {name}: {times:?}");
                    let trades =
                        [here.log().topic(Channel::Trade, own), there.log().topic(Channel::Trade, its)];
                    assert_eq!(trades[0].q, trades[1].q, "trades of {name}");
                    let books = [here.book_top(own, 1_000), there.book_top(its, 1_000)];
                    let levels = books.map(|book| book.map(|top| (top.bids, top.asks)).unwrap_or_default());
                    assert_eq!(levels[0], levels[1], "book of {name}");
                }
                here.stats().missing
            })
        })
    }

    /// It holds what the source holds, at the same revisions.
    pub fn check_settled(&self, history: &History, source: &Symbols) {
        assert_eq!(self.symbols.len(), source.len(), "every symbol");
        self.ingest.with_hub(|hub| {
            assert_eq!(hub.rev(), history.rev, "the edge knows how far it is");
            for at in 0..self.symbols.len() as u32 {
                let own = Symbol::at(at);
                let name = self.symbols.listing(own).expect("listed").name;
                let (rev, mut row) = (hub.images().rev(own), Text::default());
                let shape = Shape { since: 0, fields: u32::MAX, style: Style::default() };
                encode_image(&mut row, hub.images(), "X", own, shape);
                let row: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
                    serde_json::from_slice(row.as_bytes()).expect("a row");
                let image =
                    history.exactly(source.find(&name).expect("listed"), rev).expect("a true revision");
                for (key, value) in image {
                    assert_eq!(row[key].get(), value, "{name}.{key}");
                }
            }
        });
    }
}

/// Trades of the source have the numbers that it gave them, as nothing was lost in silence.
fn check_numbers(hub: &mut Hub, held: u64) {
    for event in &hub.cut(0, held).events {
        if let What::Trade(trade) = event.what {
            assert_eq!(event.q, trade.trade_id, "a trade's number");
        }
    }
}
