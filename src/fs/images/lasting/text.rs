//! Places and subjects as words of a line. What has no such form is not remembered.

use super::store_text;
use crate::fs::images::places::{InfoFile, LayerFileName, Place, Subject, TagFile};
use crate::oci::{ChainId, DiffId, Digest, ImageId, TagRef};

pub(super) fn place(place: &Place) -> Option<String> {
    Some(match place {
        Place::Repo(path) => format!("repository {}", line(path)?),
        Place::InfoRepo(path) => format!("info {}", line(path)?),
        Place::InfoTag(tag, id) => format!("tag {} {tag}", id.hex()),
        Place::Layer(layer) => format!("layer {}", layer.hex()),
        Place::Link(target) => {
            let bytes = target.iter().map(|byte| format!("{byte:02x}"));
            format!("link {}", bytes.collect::<String>())
        }
        Place::File(InfoFile::Tag(tag, id, file)) => {
            let name = name_of(&TagFile::ALL, file)?;
            format!("tag-file {name} {} {tag}", id.hex())
        }
        Place::File(InfoFile::Layer(layer, file)) => {
            let name = name_of(&LayerFileName::ALL, file)?;
            format!("layer-file {name} {}", layer.hex())
        }
        Place::Store(place) => format!("store {}", store_text::place(place)?),
        // The fixed ones need no number.
        _ => return None,
    })
}

pub(super) fn read_place(text: &str) -> Option<Place> {
    let (kind, rest) = text.split_once(' ')?;
    Some(match kind {
        "repository" => Place::Repo(rest.into()),
        "info" => Place::InfoRepo(rest.into()),
        "tag" => {
            let (tag, id) = tag_and_id(rest)?;
            Place::InfoTag(tag, id)
        }
        "layer" => Place::Layer(layer(rest)?),
        "store" => Place::Store(store_text::read_place(rest)?),
        "link" => {
            let pairs = (0..rest.len()).step_by(2);
            let bytes = pairs.map(|at| u8::from_str_radix(rest.get(at..at + 2)?, 16).ok());
            Place::Link(bytes.collect::<Option<Vec<u8>>>()?.into())
        }
        "tag-file" => {
            let (name, rest) = rest.split_once(' ')?;
            let (tag, id) = tag_and_id(rest)?;
            Place::File(InfoFile::Tag(tag, id, of_name(&TagFile::ALL, name)?))
        }
        "layer-file" => {
            let (name, hex) = rest.split_once(' ')?;
            let file = of_name(&LayerFileName::ALL, name)?;
            Place::File(InfoFile::Layer(layer(hex)?, file))
        }
        _ => return None,
    })
}

pub(super) fn subject(subject: &Subject) -> Option<String> {
    Some(match subject {
        Subject::Tag(tag, id) => format!("tag {} {tag}", id.hex()),
        Subject::ById(id) => format!("id {}", id.hex()),
        Subject::Dangling(id) => format!("dangling {}", id.hex()),
        Subject::Layer(layer) => format!("layer {}", layer.hex()),
        Subject::Chained(id, layer) => format!("chained {} {}", id.hex(), layer.hex()),
        Subject::Chain(chain, layers) => {
            let layers: Vec<String> = layers.iter().map(|layer| layer.hex()).collect();
            format!("chain {} {}", chain.hex(), layers.join(" "))
        }
    })
}

pub(super) fn read_subject(text: &str) -> Option<Subject> {
    let (kind, rest) = text.split_once(' ')?;
    Some(match kind {
        "tag" => {
            let (tag, id) = tag_and_id(rest)?;
            Subject::Tag(tag, id)
        }
        "id" => Subject::ById(image(rest)?),
        "dangling" => Subject::Dangling(image(rest)?),
        "layer" => Subject::Layer(layer(rest)?),
        "chained" => {
            let (id, of) = rest.split_once(' ')?;
            Subject::Chained(Digest::from_hex(id).ok()?, layer(of)?)
        }
        "chain" => {
            let (chain, layers) = rest.split_once(' ')?;
            let layers = layers.split(' ').map(layer);
            let layers = layers.collect::<Option<Vec<DiffId>>>()?;
            Subject::Chain(ChainId(Digest::from_hex(chain).ok()?), layers.into())
        }
        _ => return None,
    })
}

fn line(text: &str) -> Option<&str> {
    (!text.contains('\n')).then_some(text)
}

fn image(hex: &str) -> Option<ImageId> {
    Digest::from_hex(hex).ok().map(ImageId)
}

fn layer(hex: &str) -> Option<DiffId> {
    Digest::from_hex(hex).ok().map(DiffId)
}

fn tag_and_id(text: &str) -> Option<(TagRef, ImageId)> {
    let (id, tag) = text.split_once(' ')?;
    Some((tag.parse().ok()?, image(id)?))
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], wanted: &T) -> Option<&'static str> {
    let mut all = all.iter();
    all.find(|(_, file)| file == wanted).map(|(name, _)| *name)
}

fn of_name<T: Copy>(all: &[(&'static str, T)], wanted: &str) -> Option<T> {
    let mut all = all.iter();
    all.find(|(name, _)| *name == wanted).map(|(_, file)| *file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::images::places::StorePlace;

    #[test]
    fn every_place_comes_back() {
        let digest = Digest::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
        let (id, diff_id) = (ImageId(digest), DiffId(digest));
        let tag: TagRef = "registry.example.com:5000/org/app:1.0".parse().unwrap();
        let mut places = vec![
            Place::Repo("org/app".into()),
            Place::InfoRepo("org".into()),
            Place::InfoTag(tag.clone(), id),
            Place::Layer(diff_id),
            Place::Link(b"\n /x".as_slice().into()),
            Place::Link(Box::default()),
            Place::Store(StorePlace::Layer(digest, diff_id)),
        ];
        let files = TagFile::ALL.map(|(_, file)| Place::File(InfoFile::Tag(tag.clone(), id, file)));
        places.extend(files);
        let files = LayerFileName::ALL.map(|(_, file)| Place::File(InfoFile::Layer(diff_id, file)));
        places.extend(files);
        for wanted in places {
            let text = place(&wanted).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(read_place(&text), Some(wanted));
        }
        assert_eq!(place(&Place::Root), None);
        let subjects = [
            Subject::Tag(tag, id),
            Subject::ById(id),
            Subject::Dangling(id),
            Subject::Layer(diff_id),
            Subject::Chained(digest, diff_id),
            Subject::Chain(ChainId(digest), [diff_id, diff_id].into()),
        ];
        for wanted in subjects {
            assert_eq!(read_subject(&subject(&wanted).unwrap()), Some(wanted));
        }
    }
}
