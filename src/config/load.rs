//! YAML in and out, dotted overrides, and errors that say where. The only file that names `serde_yaml`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// The text or a value in it is not what was expected.
    #[error("{origin}: {problem}")]
    Invalid { origin: String, problem: String },
    /// Values that cannot go together.
    #[error("{key}: {problem}")]
    Value { key: String, problem: String },
    #[error(transparent)]
    Arch(#[from] crate::arch::ArchError),
}

impl ConfigError {
    /// An error about the value of `key`.
    pub fn value(key: &str, problem: impl Into<String>) -> Self {
        Self::Value { key: key.to_owned(), problem: problem.into() }
    }

    /// An error about one place of the file `origin`, such as `grid.model.depth`.
    pub fn misplaced(origin: &str, place: &str, problem: &str) -> Self {
        Self::Invalid { origin: origin.to_owned(), problem: format!("{place}: {problem}") }
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Reads a typed file; an unknown key is an error with its line and the nearest valid key.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = read_text(path)?;
    let origin = path.display().to_string();
    let document = serde_yaml::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        invalid(&origin, &key, &error.into_inner().to_string())
    })
}

/// Reads a file as a plain tree. Duplicate keys are refused.
pub fn read_tree(path: &Path) -> Result<Value, ConfigError> {
    let text = read_text(path)?;
    let origin = path.display().to_string();
    let tree: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|e| invalid(&origin, ".", &e.to_string()))?;
    serde_json::to_value(tree).map_err(|e| invalid(&origin, ".", &e.to_string()))
}

/// Types a tree; `origin` names where it came from.
pub fn from_tree<T: DeserializeOwned>(tree: Value, origin: &str) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let key = error.path().to_string();
        invalid(origin, &key, &error.into_inner().to_string())
    })
}

/// YAML of a value, without the keys that are not set.
pub fn to_yaml<T: Serialize>(value: &T) -> String {
    serde_yaml::to_string(&what_is_set(value)).expect("a YAML value serialises")
}

/// The same as a tree.
pub fn to_tree<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(what_is_set(value)).expect("configuration types have string keys")
}

fn what_is_set<T: Serialize>(value: &T) -> serde_yaml::Value {
    fn without_nulls(value: serde_yaml::Value) -> serde_yaml::Value {
        match value {
            serde_yaml::Value::Mapping(map) => {
                let set = map.into_iter().filter(|(_, value)| !value.is_null());
                serde_yaml::Value::Mapping(set.map(|(key, value)| (key, without_nulls(value))).collect())
            }
            other => other,
        }
    }
    without_nulls(serde_yaml::to_value(value).expect("configuration types serialise: string keys, finite numbers"))
}

/// The value that a YAML file would hold where `text` is written.
pub fn scalar(text: &str) -> Value {
    serde_yaml::from_str::<Value>(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Sets `a.b.c` in a tree, making the maps on the way.
pub fn set(tree: &mut Value, dotted: &str, value: Value) -> Result<(), ConfigError> {
    let mut place = tree;
    for key in dotted.split('.') {
        if place.is_null() {
            *place = Value::Object(serde_json::Map::new());
        }
        let Value::Object(map) = place else {
            return Err(ConfigError::value(dotted, format!("'{key}' lies inside a value that is no map")));
        };
        place = map.entry(key).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

/// Applies `a.b=c` as written on the command line.
pub fn set_from_text(tree: &mut Value, assignment: &str) -> Result<(), ConfigError> {
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(ConfigError::value("--set", format!("'{assignment}' is not of the form key=value")));
    };
    set(tree, key.trim(), scalar(value.trim()))
}

/// Rewrites a parser's message: where, what, and the nearest valid key.
fn invalid(origin: &str, key: &str, message: &str) -> ConfigError {
    let (message, line) = match message.rsplit_once(" at line ") {
        Some((head, position)) => {
            let line = position.split(' ').next().unwrap_or(position);
            (head, format!(" (line {line})"))
        }
        None => (message, String::new()),
    };
    // serde_yaml repeats the path that serde_path_to_error already gave.
    let message = message.strip_prefix(&format!("{key}: ")).unwrap_or(message);
    let parent = match message.split_once(": unknown field") {
        Some((path, _)) => path,
        None => key,
    };
    let problem = match unknown_key(message) {
        Some((name, expected)) => {
            let full = match parent.strip_suffix(&name).map(|p| p.trim_end_matches('.')) {
                Some("") | None if parent == "." || parent == name => name.clone(),
                Some(prefix) => format!("{prefix}.{name}"),
                None => format!("{parent}.{name}"),
            };
            let near = expected
                .iter()
                .map(|candidate| (strsim::jaro_winkler(candidate, &name), candidate))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(score, _)| *score > 0.7);
            match near {
                Some((_, candidate)) => format!("unknown key '{full}'{line}; hint: did you mean '{candidate}'?"),
                None => format!("unknown key '{full}'{line}; known here: {}", expected.join(", ")),
            }
        }
        None if key == "." => format!("{message}{line}"),
        None => format!("{key}{line}: {message}"),
    };
    ConfigError::Invalid { origin: origin.to_owned(), problem }
}

/// Splits serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_key(message: &str) -> Option<(String, Vec<String>)> {
    let start = message.find("unknown field `")?;
    let quoted: Vec<&str> = message[start..].split('`').skip(1).step_by(2).collect();
    let (name, expected) = quoted.split_first()?;
    Some(((*name).to_owned(), expected.iter().map(|e| (*e).to_owned()).collect()))
}
