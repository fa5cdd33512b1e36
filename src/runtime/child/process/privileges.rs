//! What a process gives up before it becomes the program.

use std::collections::BTreeSet;

use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::Program;
use crate::ops::container::run::{security, user};
use crate::runtime::failure::{Fails, Failure};
use crate::sys::container::install_filter;
use crate::sys::proc;

/// Gives up, before anything of the container can see this process, all that it takes no more to become the program. Whoever may
/// trace processes in the container (`--cap-add SYS_PTRACE`) finds nothing in this one that they have not, but the means to change its
/// ids and its own capabilities.
pub(in crate::runtime) fn come_with_little(program: &Program) -> Result<(), Failure> {
    let what = "giving up privileges";
    hide()?;
    let mut needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETPCAP;
    if program.new_privileges && program.filter.is_some() {
        // What it takes to install a filter then.
        needed |= CapabilitySet::SYS_ADMIN;
    }
    for number in &program.capabilities {
        needed |= CapabilitySet::from_bits_retain(1u64.checked_shl(*number).unwrap_or(0));
    }
    let mut sets = capabilities(None).fails(what)?;
    sets.permitted &= needed;
    sets.effective &= needed;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).fails(what)
}

/// Nobody may look into this process any more. Its name says that nothing is missed thereby.
pub(super) fn hide() -> Result<(), Failure> {
    let what = "hiding from the container";
    rustix::thread::set_name(proc::STARTER).fails(what)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).fails(what)
}

/// Keeps the capabilities named and no others, for this process and everything it will start.
pub(super) fn drop_privileges(
    program: &Program,
    user: &user::User,
    single_id: bool,
) -> Result<(), Failure> {
    let what = "giving up privileges";
    if program.new_privileges
        && let Some(filter) = &program.filter
    {
        install(filter)?;
    }
    let mut kept = CapabilitySet::empty();
    for number in 0..64u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if program.capabilities.contains(&number) {
            kept |= capability;
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel has none of that number.
            Err(rustix::io::Errno::INVAL) => {}
            other => other.fails(what)?,
        }
    }
    clear_ambient_capability_set().fails(what)?;
    if !single_id {
        // The group of the user is one of them: else a file that it is shut out of would be open to the user.
        let groups = [user.gid].into_iter().chain(user.groups.iter().copied());
        let groups: BTreeSet<u32> = groups.collect();
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        set_thread_groups(&groups).fails(what)?;
    }
    let unmapped = |error| match error {
        rustix::io::Errno::INVAL => Failure {
            code: 126,
            text: format!(
                "cannot run as user {:?}: the container has no user {} or no group {}",
                program.user, user.uid, user.gid
            ),
        },
        error => Failure::start(format!("{what}: {error}")),
    };
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).map_err(unmapped)?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).map_err(unmapped)?;
    let held = match user.uid {
        0 => kept,
        _ => CapabilitySet::empty(),
    };
    let sets = CapabilitySets {
        effective: held,
        permitted: held,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).fails(what)?;
    match program.new_privileges {
        true => Ok(()),
        false => set_no_new_privs(true).fails(what),
    }
}

/// From here on only the calls that the program may make, for this process and all it will start. With new privileges to be
/// had it takes one that is gone by now: [`drop_privileges`] has done it.
pub(super) fn restrict(program: &Program) -> Result<(), Failure> {
    match &program.filter {
        Some(filter) if !program.new_privileges => install(filter),
        _ => Ok(()),
    }
}

fn install(filter: &security::Program) -> Result<(), Failure> {
    install_filter(&filter.instructions, filter.flags).map_err(|error| {
        let text = match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL) => format!(
                "the kernel has no seccomp filters ({error}): run without one (--security-opt seccomp=unconfined)"
            ),
            _ => format!("restricting system calls: {error}"),
        };
        Failure::start(text)
    })
}
