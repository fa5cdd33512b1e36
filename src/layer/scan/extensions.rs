//! The headers before an entry that say more of it: GNU's long names and links, PAX records.

use crate::layer::error::Problem;
use crate::layer::limits::Limits;
use crate::layer::tar::header::{Fields, Flag};
use crate::layer::tar::pax::Pax;

/// Extension headers of the entry to come.
#[derive(Debug, Default)]
pub(in crate::layer) struct Extensions {
    pub(in crate::layer) bytes: u64,
    pub(in crate::layer) buffer: Vec<u8>,
    pub(in crate::layer) long_name: Option<Vec<u8>>,
    pub(in crate::layer) long_link: Option<Vec<u8>>,
    pub(in crate::layer) pax: Option<Pax>,
}

impl Extensions {
    pub(in crate::layer) fn pending(&self) -> bool {
        self.long_name.is_some() || self.long_link.is_some() || self.pax.is_some()
    }

    /// One more of them; no more than the entry may have, and each kind once.
    pub(in crate::layer) fn begin(&mut self, fields: &Fields, limit: u64) -> Result<(), Problem> {
        let limit = limit.min(Limits::MAX_EXTENSION_BYTES);
        self.bytes = self.bytes.saturating_add(fields.size);
        if self.bytes > limit {
            return Err(Problem::Limit {
                what: "bytes of extension headers for one entry",
                limit,
            });
        }
        let repeated = match fields.flag {
            Flag::LongName => self.long_name.is_some(),
            Flag::LongLink => self.long_link.is_some(),
            _ => self.pax.is_some(),
        };
        if repeated {
            return Err(Problem::Extension("it is repeated"));
        }
        self.buffer.clear();
        Ok(())
    }

    /// The data of one is complete in the buffer. The path of the entry, if it says it.
    pub(in crate::layer) fn end(&mut self, flag: Flag) -> Result<Option<Vec<u8>>, Problem> {
        let data = std::mem::take(&mut self.buffer);
        let path = match flag {
            Flag::LongName => {
                let name = long_text(&data, "the path")?;
                self.long_name = Some(name.clone());
                Some(name)
            }
            Flag::LongLink => {
                self.long_link = Some(long_text(&data, "the link target")?);
                None
            }
            _ => {
                let pax = Pax::parse(&data)?;
                let path = pax.path.clone();
                self.pax = Some(pax);
                path
            }
        };
        self.buffer = data;
        Ok(path)
    }
}

/// A GNU long name: a text with NULs behind it.
fn long_text(data: &[u8], what: &'static str) -> Result<Vec<u8>, Problem> {
    let length = data
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let text = data.get(..length).unwrap_or(data);
    if text.contains(&0) {
        return Err(Problem::Nul(what));
    }
    Ok(text.to_vec())
}
