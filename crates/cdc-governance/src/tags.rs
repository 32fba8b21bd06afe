//! Tags in the one form in which they are stored and compared, the taxonomy that says which exist,
//! and how the tags of a resource follow from those above it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::{Error, Result};

/// Characters of a key or value, as in Lake Formation.
pub const TAG_CHARS_MAX: usize = 50;
/// Tags of one resource, as in Lake Formation.
pub const TAGS_MAX: usize = 50;
/// The key that quarantine uses.
const SENSITIVITY: &str = "sensitivity";
/// The value that hides a resource from every grant.
const UNCLASSIFIED: &str = "unclassified";

/// A key or a value: trimmed, in Unicode NFC, lower-cased, at most [`TAG_CHARS_MAX`] characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagWord(String);

impl TagWord {
    /// The key `sensitivity`.
    pub fn sensitivity() -> TagWord {
        TagWord(SENSITIVITY.to_owned())
    }

    /// The value `unclassified`, which every taxonomy has and no grant may name.
    pub fn unclassified() -> TagWord {
        TagWord(UNCLASSIFIED.to_owned())
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TagWord {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word: String = text.trim().nfc().flat_map(char::to_lowercase).nfc().collect();
        let length = word.chars().count();
        let is_legal = (1..=TAG_CHARS_MAX).contains(&length) && word.chars().all(is_tag_char);
        if is_legal { Ok(TagWord(word)) } else { Err(Error::TagWord { text: text.to_owned() }) }
    }
}

/// Letters, numbers and the punctuation that Lake Formation allows.
fn is_tag_char(c: char) -> bool {
    (c.is_alphanumeric() && !is_combining_mark(c)) || " _.:/=+-@%".contains(c)
}

impl fmt::Display for TagWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tags of one resource: one value per key, at most [`TAGS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<TagWord, TagWord>);

impl Tags {
    /// The tags of a quarantined resource.
    pub fn quarantine() -> Tags {
        Tags(BTreeMap::from([(TagWord::sensitivity(), TagWord::unclassified())]))
    }

    /// Tags from pairs of texts; a key that comes twice keeps its last value.
    ///
    /// # Errors
    /// [`Error::TagWord`], [`Error::TooManyTags`].
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Tags> {
        let word = |text: &str| text.parse::<TagWord>();
        let pairs = pairs.into_iter().map(|(k, v)| Ok((word(k.as_ref())?, word(v.as_ref())?)));
        Tags(pairs.collect::<Result<_>>()?).within_bound()
    }

    /// The value of a key.
    pub fn get(&self, key: &TagWord) -> Option<&TagWord> {
        self.0.get(key)
    }

    /// All tags by key.
    pub fn iter(&self) -> impl Iterator<Item = (&TagWord, &TagWord)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they hide their resource from every grant.
    pub fn is_unclassified(&self) -> bool {
        self.get(&TagWord::sensitivity()) == Some(&TagWord::unclassified())
    }

    /// These tags with those of a nearer resource: by key, the nearer one wins.
    pub fn overlaid(&self, nearer: &Tags) -> Tags {
        let mut merged = self.clone();
        merged.0.extend(nearer.0.clone());
        merged
    }

    /// These tags after a change: `set` put in, then `removed` taken out.
    ///
    /// # Errors
    /// [`Error::TooManyTags`].
    pub fn changed(&self, set: &Tags, removed: &BTreeSet<TagWord>) -> Result<Tags> {
        let mut changed = self.overlaid(set);
        changed.0.retain(|key, _| !removed.contains(key));
        changed.within_bound()
    }

    fn within_bound(self) -> Result<Tags> {
        if self.0.len() > TAGS_MAX { Err(Error::TooManyTags) } else { Ok(self) }
    }
}

/// Which keys and values exist. Closed: what it does not list is refused before anything is written.
/// `sensitivity=unclassified` exists always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taxonomy(BTreeMap<TagWord, BTreeSet<TagWord>>);

impl Taxonomy {
    /// A taxonomy from the configuration's texts.
    ///
    /// # Errors
    /// [`Error::TagWord`].
    pub fn parse(keys: &BTreeMap<String, Vec<String>>) -> Result<Taxonomy> {
        let mut taxonomy = Taxonomy(BTreeMap::new());
        for (key, values) in keys {
            let values: Result<BTreeSet<TagWord>> = values.iter().map(|v| v.parse()).collect();
            taxonomy.0.entry(key.parse()?).or_default().extend(values?);
        }
        let reserved = taxonomy.0.entry(TagWord::sensitivity()).or_default();
        reserved.insert(TagWord::unclassified());
        Ok(taxonomy)
    }

    /// Whether the pair exists.
    pub fn has(&self, key: &TagWord, value: &TagWord) -> bool {
        self.0.get(key).is_some_and(|values| values.contains(value))
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&TagWord, &TagWord)> {
        self.0.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
    }

    /// Checks tags.
    ///
    /// # Errors
    /// [`Error::UnknownTag`] for the first that does not exist.
    pub fn check<'t>(
        &self,
        tags: impl IntoIterator<Item = (&'t TagWord, &'t TagWord)>,
    ) -> Result<()> {
        let unknown = tags.into_iter().find(|(key, value)| !self.has(key, value));
        match unknown {
            None => Ok(()),
            Some((key, value)) => {
                let known = self.0.get(key).map(|values| {
                    values.iter().map(TagWord::as_str).collect::<Vec<_>>().join(", ")
                });
                let (key, value) = (key.clone(), value.clone());
                Err(Error::UnknownTag { key, value, known })
            }
        }
    }
}
