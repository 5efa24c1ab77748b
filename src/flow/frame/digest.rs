//! A digest of what a client on a stream holds, so that it can check itself: the sum, over its images and books, of the
//! CRC-32C (RFC 3720 B.4) of each one's text, as `docs/protocol.md` defines it.
//!
//! Event topics are not in it: their numbers without holes are check enough. It costs every field of the selection, and
//! only streams that ask for it pay. Bound kept here: none of its own.

use rust_decimal::Decimal;
use tickgate_feeds::market::{Channel, Kind, STATE, State, Symbol};

use super::row::push_topic;
use super::text::Text;
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::topic::Topic;
use crate::flow::dispatch::wish::Wish;

/// The digest of these topics as they stand in the replica.
pub fn digest<'a>(replica: &Replica, wish: &Wish, topics: impl Iterator<Item = &'a Topic>) -> u32 {
    let mut text = Text::default();
    let mut sum = 0u32;
    for topic in topics {
        if topic.channel() == Channel::Book && replica.book(topic.symbol()).is_none() {
            continue; // no row was sent of it yet
        }
        text.truncate(0);
        push_topic(&mut text, topic.channel(), replica.name(topic.symbol()));
        match topic.channel() {
            Channel::Quote | Channel::Index => push_image(&mut text, replica, topic.symbol(), wish),
            Channel::Book => push_book(&mut text, replica, topic.symbol(), wish.depth),
            _ => continue,
        }
        sum = sum.wrapping_add(crc32c(text.as_bytes()));
    }
    sum
}

fn push_image(text: &mut Text, replica: &Replica, symbol: Symbol, wish: &Wish) {
    let channel = replica.images.head(symbol).channel;
    for (number, field) in channel.fields().iter().enumerate() {
        if wish.fields.mask(channel) >> number & 1 == 1 {
            push_field(text, field.name, replica.images.value(symbol, number as u8), field.kind);
        }
    }
}

fn push_book(text: &mut Text, replica: &Replica, symbol: Symbol, depth: u16) {
    let Some(book) = replica.book(symbol) else { return };
    push_field(text, "state", replica.images.value(symbol, STATE), Kind::Code(&State::NAMES));
    for (key, side) in [(b";bids=", &book.bids), (b";asks=", &book.asks)] {
        text.put(key);
        for (price, size) in side.iter().take(usize::from(depth)) {
            text.put_decimal(price.normalize());
            text.put(b":");
            text.put_decimal(size.normalize());
            text.put(b",");
        }
    }
}

fn push_field(text: &mut Text, name: &str, value: Option<Decimal>, kind: Kind) {
    text.put(b";");
    text.put_slice(name.as_bytes());
    text.put(b"=");
    match (value, kind) {
        (None, _) => {}
        (Some(value), Kind::Decimal) => text.put_decimal(value.normalize()),
        (Some(value), Kind::Code(names)) => {
            let name = names.get(value.mantissa() as usize).copied().unwrap_or("unknown");
            text.put_slice(name.as_bytes());
        }
        (Some(date), Kind::Date) => text.put_decimal(date), // 20261122
    }
}

const TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // Castagnoli's, its bits reversed
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720 B.4");
    }
}
