//! When an image was last used: the mtime of its manifest in `blobs/`, which has no other meaning.
//!
//! Coarse on purpose: it moves at most once an hour, and costs one `stat` in between. Nothing depends on it but what
//! `--filter used=` and `--max-size` pick and what `ls -u` shows, so a failure to note it is no failure of anything.

use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use super::Store;
use super::image_record::ImageRecord;

/// How exact it is.
pub const COARSENESS: Duration = Duration::from_secs(3600);

impl Store {
    /// When an image was last used, as far as anybody noticed: at the earliest when it came here.
    pub fn last_used(&self, image: &ImageRecord) -> SystemTime {
        let stat = fs::metadata(self.blob_path(&image.manifest.digest));
        let noted = stat.and_then(|stat| stat.modified());
        noted.map_or(image.added, |time| time.max(image.added))
    }

    /// Notes that an image is used now; whether that was not known already.
    pub fn note_use(&self, image: &ImageRecord) -> bool {
        let now = SystemTime::now();
        let known = now.duration_since(self.last_used(image));
        if self.read_only().is_some() || known.is_ok_and(|age| age < COARSENESS) {
            return false;
        }
        let path = self.blob_path(&image.manifest.digest);
        let set =
            File::open(&path).and_then(|file| file.set_times(FileTimes::new().set_modified(now)));
        if let Err(error) = &set {
            log::debug!("noting the use of {}: {error}", image.id);
        }
        set.is_ok()
    }
}
