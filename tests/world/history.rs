//! Every image at every revision at which a cut could be made: what a row must agree with.

use std::collections::BTreeMap;

use tickgate::flow::conflation::hub::Hub;
use tickgate::flow::dispatch::wish::Style;
use tickgate::flow::frame::row::{Shape, encode_image};
use tickgate::flow::frame::text::Text;
use tickgate_feeds::market::Symbol;

use super::client::{KEYS, RawRow};

/// A row's fields as text, without its key.
pub type Fields = BTreeMap<String, String>;

pub struct History {
    images: Vec<BTreeMap<u64, Fields>>,
    pub rev: u64,
    /// There is a page for every message.
    pub is_fine: bool,
    /// The prices of all trades of each symbol, those that were lost on the way included.
    pub trades: Vec<Vec<u32>>,
}

impl History {
    pub fn new(symbols_max: usize, is_fine: bool) -> Self {
        Self { images: Vec::new(), rev: 0, is_fine, trades: vec![Vec::new(); symbols_max] }
    }

    pub fn record(&mut self, hub: &mut Hub) {
        hub.cut(0, self.rev); // lists what is new
        let images = hub.images();
        self.images.resize(images.len(), BTreeMap::new());
        for symbol in images.changed_since(self.rev) {
            let mut row = Text::default();
            let shape = Shape { since: 0, fields: u32::MAX, style: Style::default() };
            encode_image(&mut row, images, "X", symbol, shape);
            let row: RawRow<'_> = serde_json::from_slice(row.as_bytes()).expect("a row is JSON");
            let fields = row.into_iter().filter(|(key, _)| !KEYS.contains(key));
            let fields = fields.map(|(key, value)| (key.to_owned(), value.get().to_owned())).collect();
            self.images[symbol.index()].insert(images.rev(symbol), fields);
        }
        self.rev = hub.rev();
    }

    /// The image as it stood at `rev`, and the revision that made it so.
    pub fn at(&self, symbol: Symbol, rev: u64) -> Option<(&u64, &Fields)> {
        self.images.get(symbol.index())?.range(..=rev).next_back()
    }

    /// The images that came after `rev`.
    pub fn since(&self, symbol: Symbol, rev: u64) -> impl Iterator<Item = &Fields> {
        self.images[symbol.index()].range(rev.saturating_add(1)..).map(|(_, fields)| fields)
    }

    /// The image at exactly this revision.
    pub fn exactly(&self, symbol: Symbol, rev: u64) -> Option<&Fields> {
        self.images.get(symbol.index())?.get(&rev)
    }
}
