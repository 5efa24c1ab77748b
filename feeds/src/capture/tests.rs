//! Small captures, written for the test into a folder of its own.

use std::io::Write;
use std::path::PathBuf;

use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;
use crate::market::Symbol;

/// A file that is gone again after the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("tickgate-capture-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        Self(path)
    }

    fn spec(&self, options: &str) -> Spec {
        Spec::parse(&format!("capture:{}?{options}", self.0.display())).expect("a spec")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(file: &File, options: &str) -> Result<(Capture, Arc<Symbols>), String> {
    let symbols = Arc::new(Symbols::new(10));
    Ok((Plan::from_spec(&file.spec(options), &symbols, FeedId(0))?.open()?, symbols))
}

fn trade(ns: i64, number: u64) -> String {
    format!(
        "{ns} {{\"e\":\"trade\",\"s\":\"BTCUSDT\",\"t\":{number},\"p\":\"1\",\"q\":\"1\",\"T\":{number},\"m\":true}}\n"
    )
}

fn trades(count: u64) -> String {
    (0..count).map(|n| trade(1_000_000 + n as i64 * 1_000, n)).collect()
}

/// Everything up to the end, and how many calls it took.
fn all(capture: &mut Capture) -> (Vec<Update>, u32) {
    let (mut out, mut calls) = (Vec::new(), 0);
    loop {
        let before = out.len();
        match capture.next(Time(5), &mut out) {
            Next::Now => calls += 1,
            Next::Ended => return (out, calls + 1),
            Next::At(time) => panic!("waits until {time:?}"),
        }
        assert!(out.len() - before < UPDATES_PER_CALL + 2);
    }
}

#[test]
fn packing_is_told_by_content_and_may_come_in_parts() {
    let text = trades(3_000);
    let (one, two) = text.as_bytes().split_at(70_001);
    let zstd = |part: &[u8]| compress_to_vec(part, CompressionLevel::Fastest);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(one), &zstd(two)].concat();
    for (name, content) in [
        ("plain.gz", text.clone().into_bytes()),
        ("gzip", [gzip(one), gzip(two)].concat()),
        ("zstd", [zstd(one), zstd(two)].concat()),
        ("zstd-skipped", skipped),
    ] {
        let file = File::new(name, &content);
        let (mut capture, symbols) = open(&file, "speed=max").expect(name);
        assert_eq!(symbols.find("BTCUSDT"), Some(Symbol::at(0)), "listed before the first update");
        let (out, calls) = all(&mut capture);
        assert_eq!((out.len(), calls, capture.errors()), (6_000, 2, 0), "{name}");
        assert_eq!(out[5_999].time, Time::from_ms(2_999));
        assert_eq!(capture.next(Time(9), &mut Vec::new()), Next::Ended);
    }
}

#[test]
fn the_recorded_pace_is_kept_and_scaled() {
    let file = File::new(
        "pace",
        [trade(1_000, 1), trade(1_500, 2), trade(400, 3), trade(3_000, 4)].concat().as_bytes(),
    );
    for (options, second, fourth) in [("", 500, 2_000), ("speed=10x", 50, 200), ("speed=0.5", 1_000, 4_000)] {
        let (mut capture, _) = open(&file, options).expect("a capture");
        let mut out = Vec::new();
        assert_eq!(capture.next(Time(70_000), &mut out), Next::At(Time(70_000 + second)));
        assert_eq!(capture.next(Time(70_000 + second - 1), &mut out), Next::At(Time(70_000 + second)));
        assert_eq!(out.len(), 2);
        assert_eq!(capture.next(Time(70_000 + second), &mut out), Next::At(Time(70_000 + fourth)));
        assert_eq!(out.len(), 6, "a time that goes back holds nothing up");
        assert_eq!(capture.next(Time(i64::MAX), &mut out), Next::Ended);
        assert_eq!((out.len(), out[7].time), (8, Time::from_ms(4)));
    }
    let (mut capture, _) = open(&file, "start=1001").expect("a capture");
    let mut out = Vec::new();
    assert_eq!(capture.next(Time(70_000), &mut out), Next::At(Time(71_500)), "a part begins at once");
    assert_eq!(out.len(), 4);
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(content).expect("memory");
    packer.finish().expect("memory")
}

/// Trades whose times ascend, now and then by nothing, among lines that cannot be used; and the times.
fn recording(random: &mut fastrand::Rng) -> (String, Vec<i64>) {
    let (mut text, mut times, mut time) = (String::new(), Vec::new(), 1_000_000_000_000);
    for _ in 0..random.u64(1..4_000) {
        time += random.i64(0..4) * random.i64(0..1_000_000);
        text += &match random.u32(..40) {
            0 => "no time\n".to_owned(),
            1 => "\r\n".to_owned(),
            2 => format!("{time} {}\n", "x".repeat(random.usize(..100_000))),
            3 => format!("{}\n", "9".repeat(random.usize(..60))),
            _ => {
                times.push(time);
                trade(time, times.len() as u64)
            }
        };
    }
    text.truncate(text.len() - usize::from(random.bool())); // not every file ends with a line's end
    (text, times)
}

#[test]
fn a_part_is_what_a_reader_of_the_whole_finds_there() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut parts = 0;
    for _ in 0..20 {
        let (text, times) = recording(&mut random);
        let plain = File::new("part", text.as_bytes());
        let packed = File::new("part.gz", &gzip(text.as_bytes()));
        let Ok((mut whole, _)) = open(&plain, "speed=max") else { continue };
        let updates = all(&mut whole).0;
        for _ in 0..10 {
            let mut at = || times[random.usize(..times.len())] + random.i64(-1..2);
            let (start, end) = (at(), at());
            let inside: Vec<usize> =
                (0..times.len()).filter(|at| start <= times[*at] && times[*at] < end).collect();
            let expected: Vec<&Update> = inside.iter().flat_map(|at| &updates[at * 2..at * 2 + 2]).collect();
            for file in [&plain, &packed] {
                match open(file, &format!("speed=max&start={start}&end={end}")) {
                    Ok((mut capture, _)) => {
                        let out = all(&mut capture).0;
                        assert_eq!(out.iter().collect::<Vec<_>>(), expected, "{start} to {end}");
                        parts += 1;
                    }
                    Err(error) => assert!(inside.is_empty(), "{start} to {end}: {error}"),
                }
            }
        }
    }
    assert!(parts > 50, "{parts}");
}

#[test]
fn a_part_is_looped_and_errors_in_it_say_where() {
    let lines = [
        "early\n",
        &trade(3_999_000, 2_999),
        "bad\n",
        &trade(9_000_000, 3_000),
        &trade(9_500_000, 3_001),
        "late\n",
    ];
    let file = File::new("looped", (trades(2_999) + &lines.concat()).as_bytes());
    let (mut capture, symbols) =
        open(&file, "speed=max&loop=true&start=3999000&end=9500000").expect("a capture");
    assert_eq!(symbols.find("BTCUSDT"), Some(Symbol::at(0)), "listed before the first update");
    let mut out = Vec::new();
    while out.len() < 10 {
        assert_eq!(capture.next(Time(5), &mut out), Next::Now);
    }
    let (ends, out): (Vec<_>, Vec<_>) = out.into_iter().partition(|update| update.body == Body::Rewound);
    assert_eq!(ends.len(), 2, "each pass ends with a word of it");
    let ms: Vec<_> = out.iter().step_by(2).map(|update| update.time.0 / 1_000_000).collect();
    assert_eq!(ms, [2_999, 3_000, 2_999, 3_000]);
    assert_eq!(capture.errors(), 2, "one in each pass: what is not of the part is not looked at");
    let error = capture.last_error().expect("an error").to_owned();
    let (line, bytes) = error
        .split_once(": line ")
        .and_then(|(_, rest)| rest.split_once(" counted from byte "))
        .expect("a place");
    let bytes: usize = bytes.split(':').next().and_then(|bytes| bytes.parse().ok()).expect("a number");
    let text = std::fs::read_to_string(&file.0).expect("the file");
    assert_eq!(
        text[bytes..].lines().nth(line.parse::<usize>().expect("a number") - 1),
        Some("bad"),
        "{error}"
    );
}

fn depth(n: u64) -> String {
    format!(
        "{n} {{\"e\":\"depthUpdate\",\"E\":{n},\"s\":\"BTCUSDT\",\"U\":{n},\"u\":{n},\"b\":[[\"1\",\"{n}\"]],\"a\":[]}}\n"
    )
}

/// A whole book, as of that update.
fn picture(n: u64) -> String {
    format!("{n} {{\"lastUpdateId\":{n},\"bids\":[[\"1\",\"1\"]],\"asks\":[]}}\n")
}

#[test]
fn a_part_has_no_book_before_a_whole_picture_of_it() {
    let text = depth(1) + &picture(1) + &depth(2) + &depth(3) + &picture(3) + &depth(4);
    let file = File::new("book", text.as_bytes());
    let (mut whole, _) = open(&file, "speed=max&end=4").expect("a capture");
    assert!(!all(&mut whole).0.is_empty());
    let (mut capture, _) = open(&file, "speed=max&start=2&end=3").expect("a capture");
    assert_eq!((all(&mut capture).0, capture.errors(), capture.skipped().waiting), (vec![], 0, 1));
    let (mut capture, _) = open(&file, "speed=max&start=2").expect("a capture");
    let first = all(&mut capture).0.remove(0);
    assert!(matches!(first.body, Body::Level(level) if level.reset), "{first:?}");
}

#[test]
fn a_part_that_has_nothing_says_what_is_next_to_it() {
    for name in ["nothing", "nothing.gz"] {
        let text = trades(2_000);
        let file =
            File::new(name, &if name == "nothing" { text.into_bytes() } else { gzip(text.as_bytes()) });
        let failed = |options: &str| open(&file, options).map(drop).expect_err(options);
        let after = failed("start=1970-01-01T00:00:01Z");
        assert!(
            after.ends_with(
                "no line from 1970-01-01T00:00:01Z on; the last line is of 1970-01-01T00:00:00.002999Z"
            ),
            "{after}"
        );
        let before = failed("end=1000000");
        assert!(
            before.ends_with(
                "has no line before 1970-01-01T00:00:00.001Z; the next line is of 1970-01-01T00:00:00.001Z"
            ),
            "{before}"
        );
        let between = failed("start=1000001&end=1000002");
        assert!(between.ends_with("the next line is of 1970-01-01T00:00:00.001001Z"), "{between}");
    }
}

#[test]
fn bad_lines_are_counted_and_passed_over() {
    let long = format!("5 {}\n", "x".repeat(LINE_BYTES_MAX));
    let bad =
        ["no time\n", "12\n", "-1 {}\n", "99999999999999999999 {}\n", "5 {\n", "\n", "\r\n", "5 \n", &long];
    let file = File::new("bad", (trade(1, 1) + &bad.concat() + &trade(2, 2)).as_bytes());
    let (mut capture, _) = open(&file, "speed=max").expect("a capture");
    assert_eq!((all(&mut capture).0.len(), capture.errors()), (4, 7));
    assert!(capture.last_error().expect("an error").contains("line 10: longer than"));
}

#[test]
fn a_cut_file_is_played_as_far_as_it_goes() {
    let mut packed = gzip(trades(20_000).as_bytes());
    packed.truncate(packed.len() / 2);
    let file = File::new("cut", &packed);
    let (mut capture, _) = open(&file, "speed=max").expect("a capture");
    assert!(all(&mut capture).0.len() > 10_000);
    assert_eq!(capture.errors(), 1, "{:?}", capture.last_error());
}

#[test]
fn what_cannot_be_played_is_said_in_one_line() {
    let failed = |file: &File, options: &str| {
        let error = open(file, options).map(drop).expect_err(options);
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let file = File::new("good", trades(1).as_bytes());
    assert!(
        failed(&file, "speed=fast").contains("option speed=\"fast\" of capture: expected max, or a multiple")
    );
    assert!(failed(&file, "speed=0").contains("0.001"));
    assert!(failed(&file, "speed=NaN").contains("expected max"));
    assert!(failed(&file, "venue=kraken").contains("expected one of binance, binance-usdm"));
    assert!(failed(&file, "lop=true").contains("did you mean \"loop\"?"));
    assert!(failed(&file, "prefix=a:b").contains("option prefix=\"a:b\""));
    assert!(failed(&File::new("empty", b""), "").contains("is empty; expected lines"));
    assert!(failed(&File::new("blank", b"\n\n"), "").contains("is empty; expected lines"));
    assert!(
        failed(&File::new("text", b"hello\nworld\n"), "")
            .contains("line 1: \"hello\" does not begin with nano")
    );
    assert!(
        failed(&File::new("text", b"hello\nworld\n"), "start=1")
            .contains("has no line with a time; expected lines")
    );
    assert!(failed(&File::new("broken", b"\x1f\x8bxx"), "").contains("line 1: "));
    let missing = File(std::env::temp_dir().join("tickgate-no-such-capture"));
    assert!(failed(&missing, "").contains("tickgate-no-such-capture: "));
    let folder = Spec::parse(&format!("capture:{}", std::env::temp_dir().display())).expect("a spec");
    let error = Plan::from_spec(&folder, &Arc::new(Symbols::new(1)), FeedId(0))
        .and_then(Plan::open)
        .map(drop)
        .expect_err("a folder");
    assert!(error.contains("is a folder"), "{error}");
}

#[test]
fn a_start_in_another_unit_is_refused() {
    let file = File::new("units", trade(1_723_194_900_000_000_000, 1).as_bytes());
    for start in [1_723_194_900_i64, 1_723_194_900_000, 1_723_194_900_000_000] {
        let error = open(&file, &format!("start={start}")).err().expect("another unit");
        assert!(error.contains(&format!("start of capture: {start} is 1970-01-")), "{error}");
        assert!(error.contains("its lines of 2024-08-09T09:15:00Z; expected a time such as"), "{error}");
    }
    for start in [1_723_194_899_000_000_000_i64, 1_723_194_900_000_000_000] {
        assert!(open(&file, &format!("start={start}")).is_ok());
    }
}

#[test]
fn a_loop_begins_anew_with_an_empty_book() {
    let text =
        depth(1) + "2 {\"lastUpdateId\":1,\"bids\":[[\"1\",\"1\"]],\"asks\":[]}\n" + &depth(2) + &trade(3, 9);
    let file = File::new("loop", text.as_bytes());
    let (mut capture, _) = open(&file, "speed=max&loop=true").expect("a capture");
    let (mut first, mut second) = (Vec::new(), Vec::new());
    assert_eq!(capture.next(Time(5), &mut first), Next::Now);
    assert_eq!(capture.next(Time(6), &mut second), Next::Now);
    let empty = first.pop().expect("the reset");
    assert_eq!(first.pop().map(|update| update.body), Some(Body::Rewound), "time goes back");
    assert!(matches!(empty.body, Body::Level(level) if level.reset && level.size.is_zero()), "{empty:?}");
    assert_eq!((first.len(), empty.time), (4, Time(3)));
    assert_eq!(second[..4], first, "numbers seen in the first pass are new again");
    assert_eq!(
        (capture.skipped().old, capture.errors()),
        (2, 0),
        "one event a pass is older than the picture"
    );
}

#[test]
fn a_loop_that_says_nothing_ends() {
    let file = File::new("ends", trades(1).as_bytes());
    let (mut capture, _) = open(&file, "speed=max&loop=true").expect("a capture");
    std::fs::write(&file.0, b"").expect("a file");
    let mut out = Vec::new();
    let calls = (0..10).take_while(|_| capture.next(Time(0), &mut out) == Next::Now).count();
    assert!(calls < 3, "{calls}");
}
