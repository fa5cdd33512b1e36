//! A glob over the names of images.

use crate::oci::{Repository, Tag, TagRef};
use crate::ops::filters::FilterError;
use crate::text::glob::Glob;

/// docker's `reference` filter: `path.Match` against the familiar name, with and without tag. Where the pattern says `docker.io`, or
/// is no pattern but a name, against the full one as well: a wildcard never stands for the registry that is left out.
#[derive(Debug, Clone)]
pub struct Pattern {
    glob: Glob,
    full: bool,
}

impl Pattern {
    /// Parses a name or a glob.
    pub fn parse(text: &str) -> Result<Pattern, FilterError> {
        // The same registry by its other name.
        let named = text.strip_prefix("index.docker.io/");
        let named = named.map(|rest| format!("docker.io/{rest}"));
        let text = named.as_deref().unwrap_or(text);
        let glob = Glob::parse(text).map_err(|_| FilterError::Pattern(text.to_owned()))?;
        let full = !Glob::is_glob(text) || text.starts_with("docker.io/");
        Ok(Pattern { glob, full })
    }

    fn is(&self, familiar: &str, canonical: &str) -> bool {
        self.glob.matches(familiar) || (self.full && self.glob.matches(canonical))
    }

    /// Whether this tag is meant.
    pub fn matches_tag(&self, tag: &TagRef) -> bool {
        let TagRef { repository, .. } = tag;
        self.is(&repository.familiar(), &repository.canonical())
            || self.is(&tag.familiar(), &tag.canonical())
    }

    /// Whether an image of this name is meant; one without a tag only by its repository.
    pub fn matches(&self, repository: Option<&Repository>, tag: Option<&Tag>) -> bool {
        match (repository, tag) {
            (Some(repository), Some(tag)) => self.matches_tag(&TagRef {
                repository: repository.clone(),
                tag: tag.clone(),
            }),
            (Some(repository), None) => self.is(&repository.familiar(), &repository.canonical()),
            (None, _) => false,
        }
    }
}
