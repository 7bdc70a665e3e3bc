//! Running a folder's tests.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use alloy_primitives::{Address, B256, keccak256};
use anyhow::{Context, Result, anyhow, bail, ensure};
use newton_evaluate::{
    ArtifactKind, DataInput, EvaluateRequest, Evaluator, Json, MachineLimits, PolicyInput,
    RULES_VERSION_1, SecretBytes, TaskContext, check_artifact,
    intent::WireIntent,
    rego::{RegoInput, testing},
    transcript::HttpFetcher,
};
use serde_json::Value;

use crate::{
    folder::{Case, Cases, Component, optional, text},
    recorded::{self, Servers},
};

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not so, and how.
    Failed(String),
    /// Nothing was tested, and why.
    NotChecked(String),
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `policy_test.rego`'s rule, or the case's name.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
}

type Artifacts = HashMap<B256, Arc<[u8]>>;

/// Runs everything in `folder`. Components that stand there built, or in `built` as `<name>.wasm`, run in the cases that say so.
///
/// # Errors
/// If the folder holds no policy, or a file cannot be understood. A test that fails is no error.
pub fn run_folder(folder: &Path, built: Option<&Path>) -> Result<Vec<Report>> {
    let desk = Desk::open(folder, built)?;
    let mut reports = desk.rego()?;
    for case in &desk.cases.cases {
        let verdict = match desk.case(case) {
            Ok(verdict) => verdict,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        reports.push(Report {
            name: case.name.clone(),
            verdict,
        });
    }
    Ok(reports)
}

struct Desk<'a> {
    folder: &'a Path,
    built: Option<&'a Path>,
    cases: Cases,
    policy: String,
    evaluator: Evaluator,
}

impl<'a> Desk<'a> {
    fn open(folder: &'a Path, built: Option<&'a Path>) -> Result<Self> {
        let cases = Cases::load(folder)?;
        let policy = text(&folder.join("policy.rego"))?;
        check_artifact(
            ArtifactKind::PolicyRego,
            policy.as_bytes(),
            Some(&cases.entrypoint),
        )?;
        let evaluator = Evaluator::new(MachineLimits {
            // An author's machine may be busy.
            component_wall: Duration::from_secs(120),
            rego_wall: Duration::from_secs(60),
            ..MachineLimits::default()
        })?;
        Ok(Self {
            folder,
            built,
            cases,
            policy,
            evaluator,
        })
    }

    fn rego(&self) -> Result<Vec<Report>> {
        let path = self.folder.join("policy_test.rego");
        let tests = text(&path)?;
        let empty = Json::Object(BTreeMap::new());
        let given = RegoInput {
            input: &empty,
            params: &empty,
            wasm: &empty,
            now_seconds: self.cases.now,
            wall: Duration::from_secs(60),
        };
        let outcomes = testing::run(&self.policy, &tests, &given)
            .with_context(|| path.display().to_string())?;
        ensure!(
            !outcomes.is_empty(),
            "{}: no rule is named test_…",
            path.display()
        );
        Ok(outcomes
            .into_iter()
            .map(|outcome| Report {
                name: outcome.name,
                verdict: outcome
                    .verdict
                    .map_or_else(Verdict::Failed, |()| Verdict::Passed),
            })
            .collect())
    }

    fn case(&self, case: &Case) -> Result<Verdict> {
        let mut artifacts = Artifacts::new();
        let mut data = Vec::new();
        for (index, component) in self.cases.components.iter().enumerate() {
            let wasm = match &case.run {
                None => recorded(component, case)?,
                Some(_) => match self.wasm(component)? {
                    Some(wasm) => wasm,
                    None => {
                        return Ok(Verdict::NotChecked(format!(
                            "component {} ({}) is not built here",
                            component.name,
                            component.source.display()
                        )));
                    }
                },
            };
            data.push(self.data(index, component, &wasm, case.secrets, &mut artifacts)?);
        }
        let request = self.request(case, data, &mut artifacts)?;
        let servers = Arc::new(Servers::new(case.run.as_deref().unwrap_or_default()));
        let http: Arc<dyn HttpFetcher> = servers.clone();
        let outcome = self.evaluator.evaluate(&request, &artifacts, Some(&http));
        let unasked = servers.unasked();
        if !unasked.is_empty() {
            return Ok(Verdict::Failed(format!(
                "never asked: {}",
                unasked.join(", ")
            )));
        }
        let (got, why) = match outcome {
            Ok(evaluation) => {
                let outputs: Vec<_> = evaluation
                    .data
                    .iter()
                    .map(|data| String::from_utf8_lossy(&data.output).into_owned())
                    .collect();
                (evaluation.result, format!("over {}", outputs.join(" ")))
            }
            Err(error) => (
                serde_json::json!({ "error": error.name() })
                    .to_string()
                    .into_bytes(),
                error.to_string(),
            ),
        };
        let expected = Json::parse(case.expect.to_string().as_bytes())?.canonical();
        if got == expected {
            return Ok(Verdict::Passed);
        }
        Ok(Verdict::Failed(format!(
            "expected {}, got {} {why}",
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&got),
        )))
    }

    fn request(
        &self,
        case: &Case,
        data: Vec<DataInput>,
        artifacts: &mut Artifacts,
    ) -> Result<EvaluateRequest> {
        let intent = self
            .folder
            .join("intents")
            .join(format!("{}.json", case.intent));
        let intent = WireIntent::from_json(text(&intent)?.as_bytes())
            .with_context(|| intent.display().to_string())?;
        let params = match &case.params {
            Some(params) => params.to_string().into_bytes(),
            None => optional(&self.folder.join("params.json"))?.unwrap_or_default(),
        };
        let schema = optional(&self.folder.join("params.schema.json"))?;
        Ok(EvaluateRequest {
            task: TaskContext {
                task_id: keccak256(&case.name),
                rules_version: RULES_VERSION_1,
                reference_block: 1,
                reference_timestamp: self.cases.now,
            },
            intent: intent.intent,
            intent_signature: intent.intent_signature,
            wasm_args: case
                .wasm_args
                .as_ref()
                .map(Value::to_string)
                .unwrap_or_default()
                .into(),
            policy: PolicyInput {
                client: CLIENT,
                rego: add(artifacts, self.policy.as_bytes()),
                entrypoint: self.cases.entrypoint.clone(),
                params_schema: schema.map(|schema| add(artifacts, &schema)),
                params,
                data_template_refs: data.iter().map(|data| data.template_id).collect(),
            },
            data,
            explain: false,
        })
    }

    fn data(
        &self,
        index: usize,
        component: &Component,
        wasm: &[u8],
        secrets: bool,
        artifacts: &mut Artifacts,
    ) -> Result<DataInput> {
        check_artifact(ArtifactKind::PolicyDataWasm, wasm, None)?;
        let file =
            |what: &str| optional(&self.folder.join(format!("{}.{what}", component.documents)));
        let number = u8::try_from(index + 1).map_err(|_| anyhow!("more than 255 components"))?;
        Ok(DataInput {
            client: CLIENT,
            instance_id: B256::repeat_byte(number),
            template_id: keccak256([number]),
            wasm: add(artifacts, wasm),
            params_schema: file("params.schema.json")?.map(|schema| add(artifacts, &schema)),
            secrets_schema: file("secrets.schema.json")?.map(|schema| add(artifacts, &schema)),
            params: file("params.json")?.unwrap_or_default(),
            secrets: match secrets {
                true => file("secrets.json")?.map(SecretBytes::new),
                false => None,
            },
        })
    }

    /// The component's WASM, where it is at hand.
    fn wasm(&self, component: &Component) -> Result<Option<Vec<u8>>> {
        if let Some(wasm) = &component.wasm {
            return optional(&self.folder.join(wasm));
        }
        match self.built {
            Some(built) => optional(&built.join(format!("{}.wasm", component.name))),
            None => Ok(None),
        }
    }
}

const CLIENT: Address = Address::repeat_byte(0xc1);

/// A component that returns what was recorded of this one.
fn recorded(component: &Component, case: &Case) -> Result<Vec<u8>> {
    let Some(output) = case.outputs.get(&component.name) else {
        bail!("no output of {} is recorded", component.name);
    };
    recorded::component(&output.to_string())
}

fn add(artifacts: &mut Artifacts, bytes: &[u8]) -> B256 {
    let hash = keccak256(bytes);
    artifacts.insert(hash, bytes.into());
    hash
}
