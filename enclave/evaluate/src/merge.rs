//! The merge of several operators' live outputs of one data component (design 4.5).
//!
//! Outputs agree byte for byte, except in the numbers that the data template's params schema names under
//! `x-newton-consensus`: there the median counts, and who is more than [`TOLERANCE_PERCENT`] away from it is left out and
//! named. Numbers are compared as exact decimals. Everything is sorted before it is used, so that the order in which a
//! gateway hands outputs over changes nothing.

mod consensus;
mod decimal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, U256};
use serde::{Deserialize, Serialize};

use crate::json::Json;

pub use consensus::{Consensus, KEYWORD, MAX_FIELDS};
use decimal::Decimal;

/// How far from the median a value may be, in percent of the median.
pub const TOLERANCE_PERCENT: u32 = 10;

/// The least share of the task's whole operator set that must stand behind a merged output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Weight of the whole set.
    pub total_weight: u128,
    /// Basis points of it; 6667 stands for two thirds, as in the contracts.
    pub bps: u16,
}

impl Quorum {
    /// Whether `weight` is enough, by the contracts' own formula.
    #[must_use]
    pub fn reached(&self, weight: u128) -> bool {
        let signed = U256::from(weight);
        let total = U256::from(self.total_weight);
        weight > 0
            && signed * U256::from(3) >= total * U256::from(2)
            && (self.bps <= 6_667 || signed * U256::from(10_000) >= total * U256::from(self.bps))
    }
}

/// One operator's output, its signature already verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedOutput {
    /// The operator's weight in the task's set.
    pub weight: u128,
    /// Canonical JSON: the component's object, or the name of a final error as a string.
    #[serde(with = "serde_bytes")]
    pub output: Vec<u8>,
}

/// The outputs of one data instance by `blsKeyHash` of their signers: nobody counts twice.
pub type Outputs = BTreeMap<B256, WeightedOutput>;

/// What the operators agree on.
#[derive(Debug, Clone, PartialEq)]
pub enum Agreed {
    /// An object.
    Output(BTreeMap<String, Json>),
    /// The component's run ended in this final error.
    Error(DataError),
}

/// The outcome of a merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// What counts.
    pub agreed: Agreed,
    /// Who was left out, by rising `blsKeyHash`.
    pub outliers: Vec<Outlier>,
}

/// An output that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlier {
    /// `blsKeyHash` of the operator.
    pub signer: B256,
    /// Why.
    pub reason: OutlierReason,
}

/// Why an output was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutlierReason {
    /// It differs outside of the declared fields.
    Differs,
    /// This declared field is too far from the median.
    Field(String),
    /// It is not canonical JSON of an object or of an error's name.
    Malformed,
}

/// Why there is nothing that a quorum agrees on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NoConsensus {
    /// No output is shared by a quorum.
    #[error("the largest group of equal outputs has weight {weight} of {total}")]
    Split {
        /// Weight of that group.
        weight: u128,
        /// Weight of the set.
        total: u128,
    },
    /// Without the outliers no quorum is left.
    #[error("without the outliers in {} weight {weight} of {total} is left", .fields.join(", "))]
    Spread {
        /// Fields with outliers.
        fields: Vec<String>,
        /// Weight without them.
        weight: u128,
        /// Weight of the set.
        total: u128,
    },
}

/// Names of the final errors in which the run of one component can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DataError {
    InvalidJson,
    NotAnObject,
    DocumentTooLarge,
    ParamsSchemaViolation,
    SecretsSchemaViolation,
    InvalidArtifact,
    DataProviderError,
    ComponentLimitExceeded,
}

impl DataError {
    const ALL: [Self; 8] = [
        Self::InvalidJson,
        Self::NotAnObject,
        Self::DocumentTooLarge,
        Self::ParamsSchemaViolation,
        Self::SecretsSchemaViolation,
        Self::InvalidArtifact,
        Self::DataProviderError,
        Self::ComponentLimitExceeded,
    ];

    /// The name, as [`crate::EvaluateError::name`] gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidJson => "InvalidJson",
            Self::NotAnObject => "NotAnObject",
            Self::DocumentTooLarge => "DocumentTooLarge",
            Self::ParamsSchemaViolation => "ParamsSchemaViolation",
            Self::SecretsSchemaViolation => "SecretsSchemaViolation",
            Self::InvalidArtifact => "InvalidArtifact",
            Self::DataProviderError => "DataProviderError",
            Self::ComponentLimitExceeded => "ComponentLimitExceeded",
        }
    }

    /// The error with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.name() == name)
    }

    /// What stands in place of an output: the name as a JSON string. An output is an object, so they cannot be mixed up.
    #[must_use]
    pub fn output(self) -> Vec<u8> {
        Json::string(self.name()).canonical()
    }
}

/// Merges what operators signed for one data instance.
///
/// # Errors
/// [`NoConsensus`] with the weights.
pub fn merge(
    consensus: &Consensus,
    quorum: Quorum,
    outputs: &Outputs,
) -> Result<Merged, NoConsensus> {
    let mut groups: BTreeMap<Vec<u8>, Group<'_>> = BTreeMap::new();
    let mut outliers = BTreeMap::new();
    for (signer, signed) in outputs {
        let Some(value) = readable(&signed.output) else {
            outliers.insert(*signer, OutlierReason::Malformed);
            continue;
        };
        let split = Split::of(consensus, value);
        let skeleton = split.skeleton.canonical();
        groups
            .entry(skeleton)
            .or_default()
            .push((*signer, signed.weight, split));
    }
    // At most one group has two thirds of the weight, so ties decide nothing.
    let best = groups
        .keys()
        .max_by_key(|key| weight(&groups[*key]))
        .cloned();
    let group = best.and_then(|key| groups.remove(&key)).unwrap_or_default();
    for (signer, ..) in groups.values().flatten() {
        outliers.insert(*signer, OutlierReason::Differs);
    }
    if !quorum.reached(weight(&group)) {
        return Err(NoConsensus::Split {
            weight: weight(&group),
            total: quorum.total_weight,
        });
    }
    let (agreed, distant) = medians(group, quorum)?;
    outliers.extend(distant);
    Ok(Merged {
        agreed,
        outliers: outliers
            .into_iter()
            .map(|(signer, reason)| Outlier { signer, reason })
            .collect(),
    })
}

type Group<'a> = Vec<(B256, u128, Split<'a>)>;

fn weight(group: &Group<'_>) -> u128 {
    group
        .iter()
        .fold(0, |sum, (_, weight, _)| sum.saturating_add(*weight))
}

/// An output with the declared numbers taken out.
struct Split<'a> {
    /// The rest. What is no number stays, and must be equal.
    skeleton: Json,
    numbers: BTreeMap<&'a str, Number>,
}

struct Number {
    value: Decimal,
    json: Json,
}

impl<'a> Split<'a> {
    fn of(consensus: &'a Consensus, value: Json) -> Self {
        let mut skeleton = value;
        let mut numbers = BTreeMap::new();
        for field in consensus.fields() {
            let Some(place) = field.find(&mut skeleton) else {
                continue;
            };
            let Some(value) = Decimal::of(place) else {
                continue;
            };
            // A number and its text in a string are not the same field.
            let hole = match place {
                Json::String(_) => Json::string("0"),
                _ => Json::int(0),
            };
            let json = std::mem::replace(place, hole);
            numbers.insert(field.text(), Number { value, json });
        }
        Self { skeleton, numbers }
    }
}

/// The group's common skeleton with the median of every declared number, and who is too far from one.
fn medians(
    group: Group<'_>,
    quorum: Quorum,
) -> Result<(Agreed, BTreeMap<B256, OutlierReason>), NoConsensus> {
    // Equal skeletons have the same holes: a hole is a zero where a number was, and stays one otherwise.
    let fields: BTreeSet<&str> = group
        .iter()
        .flat_map(|(.., split)| split.numbers.keys().copied())
        .collect();
    let mut distant: BTreeMap<B256, OutlierReason> = BTreeMap::new();
    for field in &fields {
        let values = column(&group, field);
        let Some(median) = weighted_median(&values) else {
            continue;
        };
        for (signer, _, number) in &values {
            if !number.value.within(&median.value, TOLERANCE_PERCENT) {
                distant
                    .entry(*signer)
                    .or_insert_with(|| OutlierReason::Field((*field).to_owned()));
            }
        }
    }
    let near: Group<'_> = group
        .into_iter()
        .filter(|(signer, ..)| !distant.contains_key(signer))
        .collect();
    let left = weight(&near);
    if !quorum.reached(left) {
        let fields: BTreeSet<String> = distant
            .into_values()
            .filter_map(|reason| match reason {
                OutlierReason::Field(field) => Some(field),
                OutlierReason::Differs | OutlierReason::Malformed => None,
            })
            .collect();
        return Err(NoConsensus::Spread {
            fields: fields.into_iter().collect(),
            weight: left,
            total: quorum.total_weight,
        });
    }
    // What was left out has no say in the value either.
    let mut merged = near
        .first()
        .map(|(.., split)| split.skeleton.clone())
        .unwrap_or_default();
    for field in fields {
        let values = column(&near, field);
        if let Some(median) = weighted_median(&values)
            && let Some(place) = consensus::place(&mut merged, field)
        {
            *place = median.json.clone();
        }
    }
    Ok((agreed(merged), distant))
}

fn column<'g>(group: &'g Group<'_>, field: &str) -> Vec<(B256, u128, &'g Number)> {
    group
        .iter()
        .filter_map(|(signer, weight, split)| {
            split
                .numbers
                .get(field)
                .map(|number| (*signer, *weight, number))
        })
        .collect()
}

/// The least value at or below which half of the weight lies: one that somebody reported, so nothing is ever rounded.
fn weighted_median<'g>(values: &[(B256, u128, &'g Number)]) -> Option<&'g Number> {
    let mut sorted: Vec<_> = values
        .iter()
        .map(|(_, weight, number)| (*number, number.json.canonical(), *weight))
        .collect();
    // Of equal values in several forms ("1.5", "1.50") the bytes decide.
    sorted.sort_by(|a, b| a.0.value.cmp(&b.0.value).then_with(|| a.1.cmp(&b.1)));
    let sum = |weights: &mut dyn Iterator<Item = u128>| {
        weights.fold(U256::ZERO, |sum, weight| sum + U256::from(weight))
    };
    let total = sum(&mut sorted.iter().map(|(.., weight)| *weight));
    let mut below = U256::ZERO;
    sorted
        .iter()
        .find(|(.., weight)| {
            below += U256::from(*weight);
            below * U256::from(2) >= total
        })
        .map(|(number, ..)| *number)
}

/// What a signer may have signed: canonical JSON of an object, or of the name of an error.
fn readable(output: &[u8]) -> Option<Json> {
    let value = Json::parse(output).ok()?;
    let known = match &value {
        Json::Object(_) => true,
        Json::String(name) => DataError::from_name(name).is_some(),
        _ => false,
    };
    (known && value.canonical() == output).then_some(value)
}

fn agreed(merged: Json) -> Agreed {
    match merged {
        Json::Object(members) => Agreed::Output(members),
        // Nothing else is readable.
        Json::String(name) => {
            Agreed::Error(DataError::from_name(&name).unwrap_or(DataError::DataProviderError))
        }
        _ => Agreed::Error(DataError::NotAnObject),
    }
}
