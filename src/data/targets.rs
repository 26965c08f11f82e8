//! What the source says of each target of a validation row: its kind, its true -ln p, and for a recall how far away
//! that lies which determines it.

use super::info::{CorpusInfo, CorpusKind, folder_of};
use super::predictor::{KINDS, Predictor};
use super::source::{DEFINE, EOS, Law, REFER, Slot, State};
use super::{DataError, SyntheticSpec};
use std::path::Path;

/// One target of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowTarget {
    /// Its place in the row; a model predicts it from the tokens before.
    pub position: usize,
    /// `text`, `definition_key`, `definition_value`, `reference_key` or `reference_value`: the keys of
    /// [`CorpusInfo::floor_by_kind`].
    pub kind: &'static str,
    /// -ln p(token | past), nats.
    pub nats: f64,
    /// Of a recall: where its key was mentioned before, and with it the same values.
    pub recall: Option<Distances>,
}

/// How far back a recalled token stands, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distances {
    /// At the latest mention of its key, a definition or a recall: the nearest place to copy it from.
    pub mention: usize,
    /// In the definition that holds.
    pub definition: usize,
}

/// Reads rows of a synthetic corpus as its source does.
#[derive(Debug)]
pub struct TargetReader {
    law: Law,
}

impl TargetReader {
    /// The reader of a specification's rows.
    pub fn new(spec: &SyntheticSpec) -> Result<Self, DataError> {
        spec.check()?;
        Ok(Self { law: Law::new(spec) })
    }

    /// The reader for the rows of a data path such as `data/quick/validation`; none for text.
    pub fn beside(path: &Path) -> Result<Option<Self>, DataError> {
        let Some(info) = CorpusInfo::beside(path)?.filter(|info| info.kind == CorpusKind::Synthetic) else {
            return Ok(None);
        };
        let spec: SyntheticSpec = serde_json::from_value(info.source).map_err(|e| DataError::Corpus {
            path: folder_of(path).to_owned(),
            reason: format!("its source does not read as that of a synthetic corpus: {e}"),
        })?;
        Self::new(&spec).map(Some)
    }

    /// Loss per value, in nats, of a model that knows everything but which values are recalled.
    pub fn nats_without_recall(&self) -> f64 {
        (self.law.values.len() as f64).ln()
    }

    /// All targets of a row that begins with EOS, as validation rows do, in order: positions 1, 2 and so on. A row that
    /// the source cannot have made is an error.
    pub fn targets(&self, row: &[u32]) -> Result<Vec<RowTarget>, DataError> {
        let refuse = |position: usize| DataError::Parameter {
            name: "row",
            value: format!("token {} at position {position}", row[position]),
            expected: "what the source of this corpus can emit there".to_owned(),
        };
        if row.first().is_some_and(|&first| first != EOS) {
            return Err(refuse(0));
        }
        let mut state = State::new(&self.law);
        let mut predictor = Predictor::new(&self.law);
        let mut recalls = Recalls::new(self.law.keys.len());
        let mut targets = Vec::with_capacity(row.len().saturating_sub(1));
        for (position, &token) in row.iter().enumerate().skip(1) {
            if !self.admits(&state, token) {
                return Err(refuse(position));
            }
            let recall = recalls.read(&self.law, &state, position, token);
            let said = predictor.assess(&state, token);
            targets.push(RowTarget { position, kind: KINDS[said.kind], nats: said.nats, recall });
            state.advance(&self.law, token);
        }
        Ok(targets)
    }

    fn admits(&self, state: &State, token: u32) -> bool {
        let law = &self.law;
        match state.slot {
            Slot::Text => match token {
                EOS | DEFINE => true,
                REFER => !state.defined.is_empty(),
                _ => law.prose.contains(&token),
            },
            Slot::DefinitionKey => law.keys.contains(&token),
            Slot::DefinitionValue { .. } => law.values.contains(&token),
            Slot::ReferenceKey => law.keys.contains(&token) && state.defined.contains(&(token - law.keys.start)),
            Slot::ReferenceValue { key, index } => token == state.value(key, index),
        }
    }
}

/// Where keys were defined, and the recall that is being read.
#[derive(Debug)]
struct Recalls {
    /// Place in the row of each key's latest definition.
    defined: Vec<usize>,
    current: Distances,
}

impl Recalls {
    fn new(keys: usize) -> Self {
        Self { defined: vec![0; keys], current: Distances { mention: 0, definition: 0 } }
    }

    /// Takes in the token at `position`; its distances where it is recalled. A key and its values stand in one order
    /// everywhere, so that all of them have the distances of the key.
    fn read(&mut self, law: &Law, state: &State, position: usize, token: u32) -> Option<Distances> {
        match state.slot {
            Slot::DefinitionKey => {
                self.defined[(token - law.keys.start) as usize] = position;
                None
            }
            Slot::ReferenceKey => {
                let key = token - law.keys.start;
                self.current = Distances {
                    mention: state.distance(key) as usize,
                    definition: position - self.defined[key as usize],
                };
                Some(self.current)
            }
            Slot::ReferenceValue { .. } => Some(self.current),
            Slot::Text | Slot::DefinitionValue { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CorpusInfo, FloorTable, PackedDataset, synthetic};
    use super::*;

    fn corpus() -> (tempfile::TempDir, CorpusInfo, SyntheticSpec) {
        let spec = SyntheticSpec {
            seed: 3,
            tokens: 2000,
            validation_tokens: 8000,
            vocab_size: 64,
            seq_len: 100,
            document_tokens: 250.0,
            value_tokens: 3,
            definition_rate: 0.04,
            reference_rate: 0.08,
            ..SyntheticSpec::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let info = synthetic::generate(&spec, folder.path(), &|_| {}).unwrap();
        (folder, info, spec)
    }

    fn rows(folder: &Path, row_tokens: usize) -> Vec<Vec<u32>> {
        let data = PackedDataset::open(&folder.join("validation"), row_tokens - 1, None).unwrap();
        (0..data.blocks()).map(|r| data.rows(r, 1).unwrap().iter().map(|&id| id as u32).collect()).collect()
    }

    /// The places where a key follows a marker before `position`, in the document around it, from all tokens.
    fn mentions(row: &[u32], position: usize, key: u32) -> Vec<(usize, bool)> {
        let begin = row[..position].iter().rposition(|&token| token == EOS).unwrap();
        (begin + 1..position)
            .filter(|&at| row[at] == key && (row[at - 1] == DEFINE || row[at - 1] == REFER))
            .map(|at| (at, row[at - 1] == DEFINE))
            .collect()
    }

    #[test]
    fn distances_are_those_found_by_looking_at_all_tokens() {
        let (folder, _, spec) = corpus();
        let reader = TargetReader::beside(&folder.path().join("validation")).unwrap().unwrap();
        let mut recalls = 0;
        for row in rows(folder.path(), spec.row_tokens() as usize) {
            for target in reader.targets(&row).unwrap() {
                let at = target.position;
                let Some(distances) = target.recall else {
                    assert!(!target.kind.starts_with("reference"), "{target:?}");
                    continue;
                };
                assert!(target.kind.starts_with("reference"));
                // The key of this recall stands up to three tokens back, right after REF.
                let key_at = (0..=3).map(|back| at - back).find(|&at| row[at - 1] == REFER).unwrap();
                let before = mentions(&row, key_at, row[key_at]);
                assert_eq!(key_at - before.last().unwrap().0, distances.mention);
                assert_eq!(key_at - before.iter().rfind(|(_, defines)| *defines).unwrap().0, distances.definition);
                // What stands at either distance is the very token.
                assert_eq!((row[at], row[at]), (row[at - distances.mention], row[at - distances.definition]));
                recalls += 1;
            }
        }
        assert!(recalls > 300, "{recalls}");
    }

    #[test]
    fn floors_are_those_of_the_corpus() {
        let (folder, info, spec) = corpus();
        let validation = folder.path().join("validation");
        let (reader, row_tokens) = (TargetReader::new(&spec).unwrap(), spec.row_tokens() as usize);
        let table = FloorTable::beside(&validation).unwrap().unwrap();
        let all: Vec<Vec<RowTarget>> =
            rows(folder.path(), row_tokens).iter().map(|row| reader.targets(row).unwrap()).collect();
        for (r, targets) in all.iter().enumerate() {
            assert_eq!(targets.len(), row_tokens - 1);
            let mean = targets.iter().map(|t| t.nats).sum::<f64>() / targets.len() as f64;
            let floor = table.floor_of_rows(row_tokens - 1, row_tokens, r, 1).unwrap().nats;
            assert!((mean - floor).abs() < 1e-6, "{mean} {floor}");
        }
        for (kind, floor) in &info.floor_by_kind {
            let nats: Vec<f64> = all.iter().flatten().filter(|t| t.kind == kind).map(|t| t.nats).collect();
            assert_eq!(nats.len() as u64, floor.tokens, "{kind}");
            assert!((nats.iter().sum::<f64>() / nats.len() as f64 - floor.nats).abs() < 1e-6, "{kind}");
        }
        assert_eq!(reader.nats_without_recall(), 16f64.ln());
    }

    #[test]
    fn rows_that_the_source_cannot_have_made_are_refused() {
        let (folder, _, spec) = corpus();
        let reader = TargetReader::new(&spec).unwrap();
        let row = rows(folder.path(), spec.row_tokens() as usize).remove(0);
        assert!(reader.targets(&row[1..]).unwrap_err().to_string().contains("position 0"));
        let wrong: [&[u32]; 5] = [&[EOS, REFER], &[EOS, 3], &[EOS, 64], &[EOS, DEFINE, EOS], &[EOS, DEFINE, 3, 3]];
        for row in wrong {
            let said = reader.targets(row).unwrap_err().to_string();
            assert!(said.contains(&format!("position {}", row.len() - 1)), "{said}");
        }
        let recall = [EOS, DEFINE, 3, 11, 12, 13, REFER, 3, 11, 12];
        assert_eq!(reader.targets(&recall).unwrap()[8].recall, Some(Distances { mention: 5, definition: 5 }));
        assert!(reader.targets(&[&recall[..], &[11]].concat()).is_err());
        assert!(reader.targets(&[]).unwrap().is_empty());
    }
}
