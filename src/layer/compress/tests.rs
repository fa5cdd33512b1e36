use std::io::{Read, Write};

use super::*;

const ALL: [Compression; 4] = [
    Compression::Gzip,
    Compression::Zstd,
    Compression::Xz,
    Compression::Bzip2,
];

fn compress(data: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => data.to_vec(),
        Compression::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(data).unwrap();
            out.finish().unwrap()
        }
        Compression::Zstd => {
            let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
            out.include_checksum(true).unwrap();
            out.write_all(data).unwrap();
            out.finish().unwrap()
        }
        Compression::Xz => {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(data).unwrap();
            out.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(data).unwrap();
            out.finish().unwrap()
        }
    }
}

fn undo(stream: Vec<u8>, compression: Compression) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader(Box::new(io::Cursor::new(stream)), compression).read_to_end(&mut out)?;
    Ok(out)
}

fn sample() -> Vec<u8> {
    (0..50_000u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes())
        .collect()
}

#[test]
fn every_format_is_told_and_undone() {
    for compression in ALL {
        let stream = compress(&sample(), compression);
        assert_eq!(sniff(&stream[..SNIFF]), compression);
        assert_eq!(
            undo(stream, compression).unwrap(),
            sample(),
            "{compression:?}"
        );
    }
    assert_eq!(sniff(b"etc/passwd"), Compression::None);
    assert_eq!(sniff(b""), Compression::None);
    assert_eq!(sniff(b"\x1f\x8b"), Compression::None);
    assert_eq!(undo(sample(), Compression::None).unwrap(), sample());
}

#[test]
fn several_members_are_one_stream() {
    for compression in ALL {
        let mut stream = compress(b"one ", compression);
        stream.extend(compress(b"", compression));
        stream.extend(compress(&sample(), compression));
        stream.extend(compress(b" three", compression));
        let expected = [b"one ".as_slice(), &sample(), b" three"].concat();
        assert_eq!(
            undo(stream, compression).unwrap(),
            expected,
            "{compression:?}"
        );
    }
}

#[test]
fn zstd_skippable_frames_are_skipped() {
    let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let frame = compress(b"data", Compression::Zstd);
    let stream = [
        skippable.clone(),
        frame.clone(),
        skippable.clone(),
        frame,
        skippable,
    ]
    .concat();
    assert_eq!(sniff(&stream), Compression::Zstd);
    assert_eq!(undo(stream, Compression::Zstd).unwrap(), b"datadata");
}

#[test]
fn a_stream_cut_anywhere_is_an_error() {
    for compression in ALL {
        let stream = compress(b"hello hello hello", compression);
        for length in 0..stream.len() {
            let cut = undo(stream[..length].to_vec(), compression);
            assert!(cut.is_err(), "{compression:?} cut to {length} gave {cut:?}");
        }
        // A second member cut anywhere, except away.
        for length in 1..stream.len() {
            let cut = undo([&stream[..], &stream[..length]].concat(), compression);
            assert!(
                cut.is_err(),
                "{compression:?} second member cut to {length}"
            );
        }
    }
}

#[test]
fn behind_the_end_only_nuls_may_follow() {
    for compression in ALL {
        let stream = compress(b"hello", compression);
        let with = |tail: &[u8]| undo([&stream[..], tail].concat(), compression);
        assert_eq!(with(&[0; 1]).unwrap(), b"hello");
        assert_eq!(with(&vec![0; 300_000]).unwrap(), b"hello");
        for tail in [
            &b"x"[..],
            b"garbage",
            &[0, 0, 0, 1],
            &[0x1f],
            &[0x1f, 0x8b, 8, 0],
        ] {
            assert!(with(tail).is_err(), "{compression:?} {tail:?}");
        }
        let mut late = vec![0; 300_000];
        late.push(1);
        assert!(with(&late).is_err());
    }
}

/// A changed byte is an error, or makes no difference (header fields like gzip's mtime): never other data.
#[test]
fn damage_is_an_error() {
    for compression in ALL {
        let data = &sample()[..2000];
        let stream = compress(data, compression);
        let mut errors = 0;
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 0x10;
            match undo(damaged, compression) {
                Ok(out) => assert_eq!(out, data, "{compression:?} byte {at}"),
                Err(_) => errors += 1,
            }
        }
        assert!(
            errors > stream.len() * 9 / 10,
            "{compression:?}: {errors} of {}",
            stream.len()
        );
    }
}

#[test]
fn an_error_is_not_followed_by_an_end() {
    let mut stream = compress(&sample(), Compression::Gzip);
    let last = stream.len() - 5;
    stream[last] ^= 1;
    let mut reader = reader(Box::new(io::Cursor::new(stream)), Compression::Gzip);
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
    assert!(reader.read(&mut [0; 10]).is_err());
}
