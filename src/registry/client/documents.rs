//! What a client reads whole: manifests, indexes, configs, lists of tags. Read up to a limit, checked against the digest asked
//! for or announced.

use std::io::Read;

use ureq::http::{Method, StatusCode, header};

use crate::oci::{Descriptor, Digest, ManifestOrIndex, MediaType, Repository, Tag};
use crate::registry::{BlobReader, RegistryError};
use crate::text::shown;

use super::answer::{announced, header_text, read_limited};
use super::location::resolve;
use super::{Call, Client, Fetched, pull_scope};

/// Largest manifest, as everywhere.
const MAX_MANIFEST: u64 = 4 << 20;
/// Largest page of tags.
const MAX_ANSWER: u64 = 4 << 20;
/// Most pages of a list of tags.
const MAX_PAGES: usize = 10_000;

const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

impl Client {
    /// The digest a tag has now, if the registry tells it without being asked for the document.
    pub fn digest_of(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Digest>, RegistryError> {
        let scope = pull_scope(repository);
        let call = self.manifest_call(Method::HEAD, repository, tag.as_str(), &scope);
        let response = self.call(&call)?;
        // An error has no body here; asking for the document tells what is wrong.
        match response.status() {
            StatusCode::OK => Ok(announced(&response)),
            _ => Ok(None),
        }
    }

    /// A manifest or an index by tag or digest.
    pub fn manifest(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
        digest: Option<&Digest>,
    ) -> Result<Fetched, RegistryError> {
        let name = match (digest, tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => Tag::latest().to_string(),
        };
        let scope = pull_scope(repository);
        let call = self.manifest_call(Method::GET, repository, &name, &scope);
        let response = self.call(&call)?;
        let response = self.expect(&call, response, &[StatusCode::OK])?;
        let declared = header_text(&response, header::CONTENT_TYPE).map(MediaType);
        let announced = announced(&response);
        let bytes = read_limited(response, MAX_MANIFEST, &call.what, self)?;
        let found = Digest::of(&bytes);
        for expected in digest.copied().into_iter().chain(announced) {
            if expected != found {
                return Err(RegistryError::Digest {
                    what: call.what,
                    expected,
                    found,
                });
            }
        }
        let document = ManifestOrIndex::parse(&bytes, declared.as_ref()).map_err(|source| {
            RegistryError::Document {
                what: call.what.clone(),
                source,
            }
        })?;
        let media_type = declared
            .filter(|t| t.is_manifest() || t.is_index())
            .unwrap_or_else(|| match document {
                ManifestOrIndex::Manifest(_) => MediaType::oci_manifest(),
                ManifestOrIndex::Index(_) => MediaType::oci_index(),
            });
        Ok(Fetched {
            digest: found,
            media_type,
            document,
            bytes,
        })
    }

    fn manifest_call<'a>(
        &self,
        method: Method,
        repository: &Repository,
        name: &str,
        scope: &'a str,
    ) -> Call<'a> {
        let separator = if name.contains(':') { '@' } else { ':' };
        let what = format!("manifest for {}{separator}{name}", repository.familiar());
        let url = format!("/v2/{}/manifests/{name}", repository.path());
        let mut call = Call::new(method, url, what, scope);
        call.headers
            .push((header::ACCEPT, ACCEPT_MANIFEST.to_owned()));
        call
    }

    /// A blob that is small enough for memory, checked.
    pub fn small_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", blob.digest);
        if blob.size > limit {
            return Err(RegistryError::TooLarge { what, limit });
        }
        let mut bytes = Vec::new();
        let mut reader = self.blob(repository, blob, 0);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| match RegistryError::from_io(error) {
                Ok(error) => error,
                Err(error) => self.unreachable(error.to_string()),
            })?;
        let found = Digest::of(&bytes);
        match found == blob.digest {
            true => Ok(bytes),
            false => Err(RegistryError::Digest {
                what,
                expected: blob.digest,
                found,
            }),
        }
    }

    /// A blob from `offset` on, as a stream of exactly the bytes that the announced length leaves. Whoever reads it checks
    /// the digest.
    pub fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> BlobReader {
        BlobReader::new(self.clone(), repository, blob, offset)
    }

    /// All tags of a repository.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let scope = pull_scope(repository);
        let what = format!("tags of {}", repository.familiar());
        let malformed = |reason: String| RegistryError::Malformed {
            what: what.clone(),
            reason,
        };
        let mut url = format!("/v2/{}/tags/list", repository.path());
        let mut tags: Vec<Tag> = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::new(Method::GET, url.clone(), what.clone(), &scope);
            let response = self.call(&call)?;
            let response = self.expect(&call, response, &[StatusCode::OK])?;
            let next = header_text(&response, header::LINK).and_then(|link| next_page(&link));
            let bytes = read_limited(response, MAX_ANSWER, &what, self)?;
            let page: Page =
                serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
            for text in page.tags.unwrap_or_default() {
                let tag = Tag::parse(&text)
                    .map_err(|_| malformed(format!("{:?} is no tag", shown(&text))))?;
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
            match next.map(|next| resolve(&self.absolute(&url), &next)) {
                None => return Ok(tags),
                Some(Some(next)) if self.is_own(&next) && next != self.absolute(&url) => url = next,
                Some(_) => return Err(malformed("the next page is elsewhere".to_owned())),
            }
        }
        Err(malformed(format!("more than {MAX_PAGES} pages")))
    }
}

/// `</v2/a/tags/list?last=x>; rel="next"`
fn next_page(link: &str) -> Option<String> {
    let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| url.to_owned())
}
