//! Exact decimals, as far as a median needs them.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_traits::{Pow, Signed};

use crate::json::Json;

/// Characters of a number in a string. A uint256 has 78 digits.
const MAX_TEXT: usize = 128;

/// `unscaled · 10^-scale`.
#[derive(Debug, Clone)]
pub(super) struct Decimal {
    unscaled: BigInt,
    scale: u32,
}

impl Decimal {
    /// The number that a JSON value is: a number, or a string with a plain decimal. Fractions are what their canonical text says.
    pub(super) fn of(value: &Json) -> Option<Self> {
        match value {
            Json::Int(value) => Some(Self {
                unscaled: value.clone(),
                scale: 0,
            }),
            Json::Fraction(_) => {
                let text = value.canonical();
                let text = std::str::from_utf8(&text).ok()?;
                let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
                Self::shifted(mantissa, exponent.trim_start_matches('+').parse().ok()?)
            }
            Json::String(text) if text.len() <= MAX_TEXT && is_plain(text) => {
                Self::shifted(text, 0)
            }
            _ => None,
        }
    }

    /// `mantissa · 10^exponent`.
    fn shifted(mantissa: &str, exponent: i32) -> Option<Self> {
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let unscaled: BigInt = format!("{whole}{fraction}").parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        Some(match u32::try_from(scale) {
            Ok(scale) => Self { unscaled, scale },
            Err(_) => Self {
                unscaled: unscaled * ten_to(scale.unsigned_abs()),
                scale: 0,
            },
        })
    }

    /// Whether this is at most `percent` of the median away from it.
    pub(super) fn within(&self, median: &Self, percent: u32) -> bool {
        let scale = self.scale.max(median.scale);
        let (value, median) = (self.at(scale), median.at(scale));
        (value - &median).abs() * BigInt::from(100) <= median.abs() * BigInt::from(percent)
    }

    fn at(&self, scale: u32) -> BigInt {
        &self.unscaled * ten_to(scale - self.scale)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        self.at(scale).cmp(&other.at(scale))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Equal as numbers, whatever the scale.
impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

fn ten_to(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?`
fn is_plain(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned
        .split_once('.')
        .map_or((unsigned, None), |(w, f)| (w, Some(f)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}
