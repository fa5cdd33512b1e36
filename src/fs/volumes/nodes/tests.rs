use super::*;
use crate::store::VolumeId;

const DEVICE: DeviceId = DeviceId { major: 8, minor: 1 };

fn attached(number: u32) -> Arc<Attached> {
    Arc::new(Attached {
        id: VolumeId::parse(&format!("{number:032x}")).unwrap(),
        number,
        read_only: false,
        keep: None,
    })
}

/// Visits `file` through a volume.
fn visit(nodes: &Nodes, volume: &Arc<Attached>, file: &std::fs::File) -> InodeNo {
    let stat = beneath::stat(file).unwrap();
    let descriptor = file.try_clone().unwrap().into();
    let found_as = (InodeNo::ROOT, &b"f"[..]);
    let (_, attr, _) = nodes.enter(volume, descriptor, &stat, false, found_as, || None);
    attr.ino
}

/// The space a number lies in; `None` if it was invented.
fn space(ino: InodeNo) -> Option<u64> {
    (ino.0 < INVENTED).then_some(ino.0 >> HOST_BITS)
}

/// More volumes than there are spaces, one after the other: each has numbers that stay.
#[test]
fn regression_numbers_of_ended_volumes_are_given_back() {
    let nodes = Nodes::default();
    let file = tempfile::tempfile().unwrap();
    for number in 0..40_000 {
        let volume = attached(number);
        let ino = visit(&nodes, &volume, &file);
        assert!(space(ino).is_some(), "volume {number}");
        nodes.forget(ino, 1);
        nodes.ended(number);
    }
    assert!(nodes.0.lock().spaces.is_empty());
    assert!(nodes.0.lock().ended.is_empty());
}

/// A space whose nodes the kernel knows is nobody else's, whatever has become of the volume; one only listed is free at once.
#[test]
fn numbers_are_not_given_back_before_the_kernel_has_forgotten() {
    let nodes = Nodes::default();
    let file = tempfile::tempfile().unwrap();
    let (one, other) = (attached(1), attached(2));
    let first = visit(&nodes, &one, &file);
    nodes.ended(1);
    let second = visit(&nodes, &other, &file);
    assert_ne!(space(first), space(second));
    nodes.forget(first, 1);
    assert_eq!(space(nodes.shown(3, DEVICE, 9)), space(first));
    nodes.ended(3);
    assert_eq!(space(nodes.shown(4, DEVICE, 9)), space(first));
}
