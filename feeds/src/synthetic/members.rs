//! The members of the simulated VN30: the names in force since 2026-08-03, everything else about them made up.
//!
//! Bound kept here: the number of members is a constant, so every table over them is of that size.

use super::member::Profile;

const fn member(name: &'static str, home: i64, float_millions: i64, activity: u32) -> Profile {
    Profile { name, home, float: float_millions * 1_000, activity }
}

/// By name; home price in VND (on tick), free float in millions of shares, activity relative to the others.
pub(super) const MEMBERS: [Profile; 30] = [
    member("ACB", 23_500, 4_300, 62),
    member("BID", 38_200, 1_300, 27),
    member("BSR", 24_800, 780, 30),
    member("CTG", 36_500, 1_900, 55),
    member("FPT", 98_500, 1_450, 90),
    member("GAS", 71_200, 230, 11),
    member("GVR", 31_500, 200, 18),
    member("HDB", 26_400, 2_900, 48),
    member("HPG", 26_800, 4_200, 130),
    member("LPB", 48_500, 2_700, 22),
    member("MBB", 26_600, 4_400, 105),
    member("MCH", 152_000, 260, 8),
    member("MSN", 78_500, 870, 60),
    member("MWG", 82_300, 1_250, 66),
    member("SAB", 47_200, 140, 9),
    member("SHB", 12_100, 3_700, 150),
    member("SSB", 17_850, 2_300, 14),
    member("SSI", 24_600, 1_550, 140),
    member("STB", 56_800, 1_790, 70),
    member("TCB", 34_500, 4_600, 84),
    member("TCX", 46_500, 350, 16),
    member("VCB", 61_500, 920, 36),
    member("VHM", 96_400, 1_230, 58),
    member("VIB", 17_900, 1_850, 33),
    member("VIC", 168_000, 1_350, 72),
    member("VJC", 154_000, 300, 20),
    member("VNM", 60_800, 840, 40),
    member("VPB", 28_300, 4_800, 115),
    member("VPL", 84_500, 360, 12),
    member("VRE", 29_650, 910, 52),
];
