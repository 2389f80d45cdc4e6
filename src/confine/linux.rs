//! What Linux does to confine a process: capabilities, Landlock, seccomp, and the `dumpable` flag.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::{ConfineError, Confinement, Support, hidden};

/// Accesses to files that are governed. Newer kernels have more; older ones leave out what they do
/// not know.
const FILES: ABI = ABI::V5;
/// Since when a process can be kept from signalling others.
const SIGNALS: ABI = ABI::V6;
/// Directories of a home directory that start-up tools of servers (npm, uv, pip) create when they
/// are first used. They are created beforehand where nothing can be created later.
const OF_TOOLS: [&str; 4] = [".cache", ".config", ".local/share", ".npm"];
/// The first file descriptor that a server does not get.
const FIRST_CLOSED: i32 = 3;
/// Entries of directories that are looked at to allow what is beside a hidden one. What is found
/// beyond them stays closed.
const ENTRIES_MAX: usize = 65_536;

/// What a server keeps of root's privileges if it runs as root: those over the files, users and
/// low ports of its own container, and none over other processes, devices or the kernel.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// System calls that fail with `EPERM`: those that read or steer other processes, and those that
/// Docker's default profile does not permit without privileges either, so that servers do without
/// them.
const FORBIDDEN: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    // Keys of the kernel, which other programs of the user share.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // The file system as others see it, and files past the checks of their path.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_setns,
    // Work that the kernel does without further system calls.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine.
    libc::SYS_acct,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
];

/// See [`super::support`].
pub(super) fn support() -> Support {
    let hard = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = hard().handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create);
    let signals = hard().scope(Scope::from_all(SIGNALS)).and_then(Ruleset::create);
    Support { files: files.is_ok(), signals: signals.is_ok() }
}

/// See [`super::protect_self`].
pub(super) fn not_dumpable() -> Result<(), ConfineError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|cause| ConfineError::new("making this process unreadable", cause))
}

/// Restricts this process and what it executes, for good.
pub(super) fn restrict(confinement: &Confinement) -> Result<(), ConfineError> {
    drop_capabilities()?;
    // So that no program with a set-user-id bit gives anything back.
    set_no_new_privs(true).map_err(|cause| ConfineError::new("giving up new privileges", cause))?;
    let status =
        hide(confinement).map_err(|cause| ConfineError::new("hiding files (Landlock)", cause))?;
    if confinement.required && status == RulesetStatus::NotEnforced {
        return Err(ConfineError::new("hiding files", "this kernel has no Landlock"));
    }
    forbid_calls()?;
    // They close when the server is executed.
    close_fds::set_fds_cloexec(FIRST_CLOSED, &[]);
    Ok(())
}

fn drop_capabilities() -> Result<(), ConfineError> {
    let failed = |cause| ConfineError::new("dropping capabilities", cause);
    let now = capabilities(None).map_err(failed)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        let bits = (0..u64::BITS).filter_map(|bit| 1_u64.checked_shl(bit));
        for one in bits.map(CapabilitySet::from_bits_retain) {
            // An error means that the kernel does not know it.
            if !KEPT.contains(one) && capability_is_in_bounding_set(one).unwrap_or(false) {
                remove_capability_from_bounding_set(one).map_err(failed)?;
            }
        }
    }
    clear_ambient_capability_set().map_err(failed)?;
    let kept = CapabilitySets {
        effective: now.effective.intersection(KEPT),
        permitted: now.permitted.intersection(KEPT),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(failed)
}

/// Denies all access to `paths`, and signals to processes that are not descendants. A Landlock
/// domain also keeps its processes from reading the memory, environment and descriptors of others.
///
/// Landlock has no rule that denies: what is beside the hidden places, on each level from the root,
/// is allowed. So in the directories above a hidden place nothing can be listed or created, while
/// what is in them now can be used.
fn hide(confinement: &Confinement) -> Result<RulesetStatus, landlock::RulesetError> {
    let mut places = hidden::resolve(&confinement.hidden);
    if geteuid().is_root() {
        places.extend(disks());
    }
    if confinement.user.is_none() {
        prepare_home(&places);
    }
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(FILES))?
        .scope(Scope::Signal)?
        .create()?;
    let ruleset = allow_others(ruleset, &places)?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Creates what tools need in the home directory if that is above one of `places`. A failure is
/// theirs to report.
fn prepare_home(places: &BTreeSet<PathBuf>) {
    let home = std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
    let Some(home) = home.filter(|home| places.iter().any(|place| place.starts_with(home))) else {
        return;
    };
    for name in OF_TOOLS {
        drop(fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join(name)));
    }
}

/// Devices through which root would read files past their path.
fn disks() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let disks = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()));
    let memory = ["/dev/mem", "/dev/kmem", "/dev/port"].map(PathBuf::from);
    disks.map(|entry| entry.path()).chain(memory.into_iter().filter(|path| path.exists())).collect()
}

fn allow_others(
    mut ruleset: RulesetCreated,
    places: &BTreeSet<PathBuf>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut above = vec![PathBuf::from("/")];
    if places.is_empty() {
        return allow(ruleset, Path::new("/"));
    }
    let mut left = ENTRIES_MAX;
    while let Some(folder) = above.pop() {
        // What cannot be listed by us is as good as closed.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if places.contains(&path) {
                continue;
            }
            // In order, what is below `path` comes right after it.
            let next = places.range(path.clone()..).next();
            if next.is_some_and(|place| place.starts_with(&path)) {
                above.push(path);
                continue;
            }
            let Some(rest) = left.checked_sub(1) else { break };
            left = rest;
            ruleset = allow(ruleset, &path)?;
        }
    }
    Ok(ruleset)
}

/// Allows everything at and below `path`. A symbolic link is left out: where it leads has a rule of
/// its own, or none.
fn allow(ruleset: RulesetCreated, path: &Path) -> Result<RulesetCreated, landlock::RulesetError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()) else { return Ok(ruleset) };
    let kind = fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let access = match kind {
        Ok(FileType::Symlink) | Err(_) => return Ok(ruleset),
        Ok(FileType::Directory) => AccessFs::from_all(FILES),
        Ok(_) => AccessFs::from_file(FILES),
    };
    ruleset.add_rule(PathBeneath::new(file, access))
}

fn forbid_calls() -> Result<(), ConfineError> {
    const DOING: &str = "forbidding system calls (seccomp)";
    // A filter for another machine is none: these calls stay allowed.
    let Ok(machine) = std::env::consts::ARCH.try_into() else { return Ok(()) };
    let filter = filter()
        .and_then(|rules| {
            let refuse = u32::try_from(libc::EPERM).unwrap_or(1);
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(refuse), machine)
        })
        .and_then(BpfProgram::try_from)
        .map_err(|cause| ConfineError::new(DOING, cause))?;
    apply_filter(&filter).map_err(|cause| ConfineError::new(DOING, cause))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    // Resource limits of another process, by which it could be killed. 0 is the caller.
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![other])?]);
    Ok(rules)
}
