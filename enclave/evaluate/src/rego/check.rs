//! The walk over a parsed module: entrypoint, known functions, no recursion.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{BUILTINS, Expr, Literal, Module, Query, Ref, Rule, RuleAssign, RuleHead};

use super::builtins::{IMPURE, OURS};
use crate::error::ArtifactError;

/// Resolves an entrypoint to the path the interpreter takes.
pub(super) fn entrypoint(module: &Module, entrypoint: &str) -> Result<String, ArtifactError> {
    let package = static_path(&module.package.refr).unwrap_or_default();
    let package_text = package.join(".");
    let missing = || ArtifactError::EntrypointMissing {
        entrypoint: entrypoint.to_owned(),
        package: package_text.clone(),
    };
    let wanted = entrypoint.strip_prefix("data.").unwrap_or(entrypoint);
    let rule = wanted
        .strip_prefix(&package_text)
        .and_then(|rest| rest.strip_prefix('.'))
        .ok_or_else(missing)?;
    let head = module
        .policy
        .iter()
        .filter_map(|candidate| value_head(candidate))
        .find(|head| head.join(".") == rule)
        .ok_or_else(missing)?;
    Ok(path(&package, &head))
}

/// The first rule that could be an entrypoint.
pub(super) fn any_entrypoint(module: &Module) -> Result<String, ArtifactError> {
    let package = static_path(&module.package.refr).unwrap_or_default();
    let head = module
        .policy
        .iter()
        .find_map(|candidate| value_head(candidate))
        .ok_or_else(|| ArtifactError::InvalidRego {
            reason: "no rule could be an entrypoint".to_owned(),
        })?;
    Ok(path(&package, &head))
}

fn path(package: &[String], head: &[String]) -> String {
    let mut path = "data".to_owned();
    for component in package.iter().chain(head) {
        if is_identifier(component) {
            path.push('.');
            path.push_str(component);
        } else {
            path.push_str(&format!(
                "[\"{}\"]",
                component.replace('\\', "\\\\").replace('"', "\\\"")
            ));
        }
    }
    path
}

/// Checks every call of the module.
pub(super) fn calls(module: &Module) -> Result<(), ArtifactError> {
    let package = static_path(&module.package.refr)
        .unwrap_or_default()
        .join(".");
    let aliases = aliases(module);
    let functions: BTreeSet<String> = module
        .policy
        .iter()
        .filter_map(|rule| function_name(rule))
        .collect();
    // Which function's body calls which functions of the module.
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in &module.policy {
        let owner = function_name(rule);
        for (name, line) in called(rule) {
            let resolved = resolve(&name, &aliases);
            let own = resolved
                .strip_prefix("data.")
                .and_then(|path| path.strip_prefix(&package));
            let local = own
                .and_then(|path| path.strip_prefix('.'))
                .unwrap_or(&resolved)
                .to_owned();
            if functions.contains(&local) {
                if let Some(owner) = &owner {
                    graph.entry(owner.clone()).or_default().insert(local);
                }
                continue;
            }
            known(&resolved, &name, line)?;
        }
    }
    match cycle(&graph) {
        Some(function) => Err(ArtifactError::InvalidRego {
            reason: format!("function {function} is recursive"),
        }),
        None => Ok(()),
    }
}

fn known(resolved: &str, name: &str, line: u32) -> Result<(), ArtifactError> {
    if IMPURE.contains(&resolved) {
        return Err(ArtifactError::ImpureFunction {
            function: name.to_owned(),
            line,
        });
    }
    if resolved == "print" || OURS.contains(&resolved) || BUILTINS.contains_key(resolved) {
        return Ok(());
    }
    let domain = resolved
        .strip_prefix("newton.")
        .map(|rest| format!("newton.{}", rest.split('.').next().unwrap_or_default()));
    Err(ArtifactError::UnknownFunction {
        function: name.to_owned(),
        line,
        domain,
    })
}

fn aliases(module: &Module) -> BTreeMap<String, String> {
    module
        .imports
        .iter()
        .filter_map(|import| {
            let path = static_path(&import.refr)?;
            // `import rego.v1` and `import future.keywords.in` bind no names that can be called.
            if matches!(path.first().map(String::as_str), Some("rego" | "future")) {
                return None;
            }
            let alias = match &import.r#as {
                Some(span) => span.text().to_owned(),
                None => path.last()?.clone(),
            };
            Some((alias, path.join(".")))
        })
        .collect()
}

fn resolve(name: &str, aliases: &BTreeMap<String, String>) -> String {
    let (first, rest) = name
        .split_once('.')
        .map_or((name, None), |(first, rest)| (first, Some(rest)));
    match (aliases.get(first), rest) {
        (Some(path), Some(rest)) => format!("{path}.{rest}"),
        (Some(path), None) => path.clone(),
        (None, _) => name.to_owned(),
    }
}

/// A node of the graph that reaches itself.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    graph
        .keys()
        .find(|start| {
            let mut seen = BTreeSet::new();
            let mut pending: Vec<&String> = graph[*start].iter().collect();
            while let Some(next) = pending.pop() {
                if next == *start {
                    return true;
                }
                if seen.insert(next) {
                    pending.extend(graph.get(next).into_iter().flatten());
                }
            }
            false
        })
        .cloned()
}

fn function_name(rule: &Rule) -> Option<String> {
    match rule {
        Rule::Spec {
            head: RuleHead::Func { refr, .. },
            ..
        } => Some(static_path(refr)?.join(".")),
        Rule::Default { refr, args, .. } if !args.is_empty() => Some(static_path(refr)?.join(".")),
        _ => None,
    }
}

/// The path of a rule that has a value of its own, without the part that depends on variables.
fn value_head(rule: &Rule) -> Option<Vec<String>> {
    match rule {
        Rule::Spec {
            head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. },
            ..
        } => Some(prefix_path(refr)),
        Rule::Default { refr, args, .. } if args.is_empty() => Some(prefix_path(refr)),
        _ => None,
    }
}

/// All components, `None` when one is not static.
fn static_path(expression: &Ref<Expr>) -> Option<Vec<String>> {
    let mut reversed = Vec::new();
    let mut current = expression;
    loop {
        current = match current.as_ref() {
            Expr::Var { span, .. } => {
                reversed.push(span.text().to_owned());
                reversed.reverse();
                return Some(reversed);
            }
            Expr::RefDot { refr, field, .. } => {
                reversed.push(field.0.text().to_owned());
                refr
            }
            Expr::RefBrack { refr, index, .. } => {
                reversed.push(string_of(index)?);
                refr
            }
            _ => return None,
        };
    }
}

/// The static components before the first variable one.
fn prefix_path(expression: &Ref<Expr>) -> Vec<String> {
    let mut reversed = Vec::new();
    let mut current = expression;
    loop {
        current = match current.as_ref() {
            Expr::Var { span, .. } => {
                reversed.push(span.text().to_owned());
                reversed.reverse();
                return reversed;
            }
            Expr::RefDot { refr, field, .. } => {
                reversed.push(field.0.text().to_owned());
                refr
            }
            Expr::RefBrack { refr, index, .. } => {
                match string_of(index) {
                    Some(component) => reversed.push(component),
                    None => reversed.clear(),
                }
                refr
            }
            _ => return Vec::new(),
        };
    }
}

fn string_of(expression: &Ref<Expr>) -> Option<String> {
    match expression.as_ref() {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.as_ref().to_owned())
        }
        _ => None,
    }
}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The name of a module's package.
pub(super) fn package(module: &Module) -> String {
    static_path(&module.package.refr)
        .unwrap_or_default()
        .join(".")
}

/// The rules of a module that have a value, each once, in order of their names.
pub(super) fn rules(module: &Module) -> BTreeSet<String> {
    module
        .policy
        .iter()
        .filter_map(|rule| value_head(rule))
        .map(|head| head.join("."))
        .collect()
}

/// Every function called in a rule, or put in a function's place by `with`, with its line. Iterative: chains of operators nest
/// as deep as they are long.
fn called(rule: &Rule) -> Vec<(String, u32)> {
    let mut walk = Walk::default();
    match rule {
        Rule::Spec { head, bodies, .. } => {
            match head {
                RuleHead::Compr { refr, assign, .. } => {
                    walk.push(refr);
                    walk.assign(assign.as_ref());
                }
                RuleHead::Set { refr, key, .. } => {
                    walk.push(refr);
                    walk.extend(key.iter());
                }
                RuleHead::Func {
                    refr, args, assign, ..
                } => {
                    walk.push(refr);
                    walk.extend(args);
                    walk.assign(assign.as_ref());
                }
            }
            for body in bodies {
                walk.assign(body.assign.as_ref());
                walk.query(&body.query);
            }
        }
        Rule::Default { value, args, .. } => {
            walk.extend(args);
            walk.push(value);
        }
    }
    walk.run()
}

#[derive(Default)]
struct Walk<'a> {
    pending: Vec<&'a Ref<Expr>>,
    found: Vec<(String, u32)>,
}

impl<'a> Walk<'a> {
    fn push(&mut self, expression: &'a Ref<Expr>) {
        self.pending.push(expression);
    }

    fn extend(&mut self, expressions: impl IntoIterator<Item = &'a Ref<Expr>>) {
        self.pending.extend(expressions);
    }

    fn assign(&mut self, assign: Option<&'a RuleAssign>) {
        self.extend(assign.map(|assign| &assign.value));
    }

    fn query(&mut self, query: &'a Query) {
        for statement in &query.stmts {
            for modifier in &statement.with_mods {
                self.push(&modifier.refr);
                self.push(&modifier.r#as);
                // `with count as rand.intn` calls what the right side names.
                if let Some(name) = static_path(&modifier.r#as).map(|path| path.join("."))
                    && (IMPURE.contains(&name.as_str()) || name.starts_with("newton."))
                {
                    self.found.push((name, modifier.span.line));
                }
            }
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn {
                    key,
                    value,
                    collection,
                    ..
                } => {
                    self.extend(key.iter());
                    self.push(value);
                    self.push(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.push(expr),
                Literal::Every { domain, query, .. } => {
                    self.push(domain);
                    self.query(query);
                }
            }
        }
    }

    fn run(mut self) -> Vec<(String, u32)> {
        while let Some(expression) = self.pending.pop() {
            match expression.as_ref() {
                Expr::String { .. }
                | Expr::RawString { .. }
                | Expr::Number { .. }
                | Expr::Bool { .. }
                | Expr::Null { .. }
                | Expr::Var { .. } => {}
                Expr::Array { items, .. } | Expr::Set { items, .. } => self.extend(items),
                Expr::Object { fields, .. } => {
                    for (_, key, value) in fields {
                        self.push(key);
                        self.push(value);
                    }
                }
                Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                    self.push(term);
                    self.query(query);
                }
                Expr::ObjectCompr {
                    key, value, query, ..
                } => {
                    self.push(key);
                    self.push(value);
                    self.query(query);
                }
                Expr::Call {
                    span, fcn, params, ..
                } => {
                    // The interpreter leaves variable parts of a function's name out: such a name must not pass for another.
                    let name = static_path(fcn)
                        .map_or_else(|| "(computed name)".to_owned(), |path| path.join("."));
                    self.found.push((name, span.line));
                    self.extend(params);
                }
                Expr::UnaryExpr { expr, .. } => self.push(expr),
                Expr::RefDot { refr, .. } => self.push(refr),
                Expr::RefBrack { refr, index, .. } => {
                    self.push(refr);
                    self.push(index);
                }
                Expr::BinExpr { lhs, rhs, .. }
                | Expr::BoolExpr { lhs, rhs, .. }
                | Expr::ArithExpr { lhs, rhs, .. }
                | Expr::AssignExpr { lhs, rhs, .. } => {
                    self.push(lhs);
                    self.push(rhs);
                }
                Expr::Membership {
                    key,
                    value,
                    collection,
                    ..
                } => {
                    self.extend(key.iter());
                    self.push(value);
                    self.push(collection);
                }
            }
        }
        self.found
    }
}
