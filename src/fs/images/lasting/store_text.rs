//! Places of the stores of engines as words of a line.

use crate::fs::images::places::{Data, StorePlace};
use crate::oci::{DiffId, Digest, ImageId};

/// Those that there is one of.
const ALONE: [(&str, StorePlace); 11] = [
    ("containers", StorePlace::Containers),
    ("chains", StorePlace::Chains),
    ("images", StorePlace::Images),
    ("images.json", StorePlace::ImagesJson),
    ("images.lock", StorePlace::ImagesLock),
    ("layers", StorePlace::Layers),
    ("layers.json", StorePlace::LayersJson),
    ("layers.lock", StorePlace::LayersLock),
    ("overlay", StorePlace::Overlay),
    ("links", StorePlace::Links),
    ("symlink", StorePlace::Symlink(None)),
];

const DATA: [(&str, Data); 3] = [
    ("manifest", Data::Manifest),
    ("by-digest", Data::ManifestByDigest),
    ("config", Data::Config),
];

pub(super) fn place(place: &StorePlace) -> Option<String> {
    if let Some((word, _)) = ALONE.iter().find(|(_, alone)| alone == place) {
        return Some((*word).to_owned());
    }
    Some(match place {
        StorePlace::Image(id) => format!("image {}", id.hex()),
        StorePlace::Data(id, data, digest) => {
            let (word, _) = DATA.iter().find(|(_, known)| known == data)?;
            format!("{word} {} {}", id.hex(), digest.hex())
        }
        StorePlace::TarSplit(id, layer) => format!("tar-split {} {}", id.hex(), layer.hex()),
        StorePlace::Layer(id, layer) => format!("layer {} {}", id.hex(), layer.hex()),
        StorePlace::Link(id) => format!("link {}", id.hex()),
        StorePlace::Lower(id) => format!("lower {}", id.hex()),
        StorePlace::Symlink(Some(id)) => format!("symlink {}", id.hex()),
        // Above.
        _ => return None,
    })
}

pub(super) fn read_place(text: &str) -> Option<StorePlace> {
    let Some((word, rest)) = text.split_once(' ') else {
        let mut alone = ALONE.into_iter();
        return alone
            .find(|(word, _)| *word == text)
            .map(|(_, place)| place);
    };
    let (one, two) = match rest.split_once(' ') {
        Some((one, two)) => (digest(one)?, Some(digest(two)?)),
        None => (digest(rest)?, None),
    };
    if let Some((_, data)) = DATA.iter().find(|(known, _)| *known == word) {
        return Some(StorePlace::Data(ImageId(one), *data, two?));
    }
    Some(match word {
        "image" => StorePlace::Image(ImageId(one)),
        "tar-split" => StorePlace::TarSplit(one, DiffId(two?)),
        "layer" => StorePlace::Layer(one, DiffId(two?)),
        "link" => StorePlace::Link(one),
        "lower" => StorePlace::Lower(one),
        "symlink" => StorePlace::Symlink(Some(one)),
        _ => return None,
    })
}

fn digest(hex: &str) -> Option<Digest> {
    Digest::from_hex(hex).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_store_comes_back() {
        let digest = |digit: &str| Digest::from_hex(&digit.repeat(64)).unwrap();
        let (one, two) = (digest("1"), digest("2"));
        let mut places = ALONE.map(|(_, place)| place).to_vec();
        places.extend(Data::ALL.map(|data| StorePlace::Data(ImageId(one), data, two)));
        places.extend([
            StorePlace::Image(ImageId(one)),
            StorePlace::TarSplit(one, DiffId(two)),
            StorePlace::Layer(one, DiffId(two)),
            StorePlace::Link(one),
            StorePlace::Lower(one),
            StorePlace::Symlink(Some(one)),
        ]);
        for wanted in places {
            let text = place(&wanted).unwrap();
            assert_eq!(read_place(&text), Some(wanted), "{text}");
        }
        assert_eq!(read_place("layer 12"), None);
    }
}
