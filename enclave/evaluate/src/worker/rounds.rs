//! The two phases of an evaluation by several operators, in workers.

use std::collections::BTreeMap;

use alloy_primitives::B256;

use super::{
    WorkerPool,
    pool::{confused, size_of},
    wire::{Reply, Send},
};
use crate::{
    error::EvaluateError,
    evaluate::{Concluded, Prepared},
    merge::{Outputs, Quorum},
    request::{ArtifactSource, EvaluateRequest},
    transcript::HttpFetcher,
};

impl WorkerPool {
    /// Runs the data components of a task and nothing else.
    ///
    /// # Errors
    /// As [`crate::Evaluator::prepare`].
    pub fn prepare(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: Option<&dyn HttpFetcher>,
    ) -> Result<Vec<Prepared>, EvaluateError> {
        self.ensure_modules(request, source)?;
        let message = Send::Prepare(request, http.is_some());
        let (size, wall) = (size_of(request), self.wall_of(request));
        match self.call(&message, &[], size, wall, Some(source), http)? {
            Reply::Prepared(result) => result,
            Reply::Evaluated(Err(error)) => Err(error),
            _ => Err(confused()),
        }
    }

    /// Merges what operators signed and decides.
    ///
    /// # Errors
    /// As [`crate::Evaluator::conclude`].
    pub fn conclude(
        &self,
        request: &EvaluateRequest,
        quorum: Quorum,
        outputs: &BTreeMap<B256, Outputs>,
        source: &dyn ArtifactSource,
    ) -> Result<Concluded, EvaluateError> {
        let signed = outputs.values().flat_map(BTreeMap::values);
        let size = size_of(request) + signed.fold(0, |sum, o| sum + o.output.len() + 64);
        let message = Send::Conclude(request, quorum, outputs);
        match self.call(
            &message,
            &[],
            size,
            self.wall_of(request),
            Some(source),
            None,
        )? {
            Reply::Concluded(result) => result,
            Reply::Evaluated(Err(error)) => Err(error),
            _ => Err(confused()),
        }
    }
}
