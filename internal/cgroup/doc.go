// Package cgroup limits what the processes of a container may use, with a control group of version 2 (cgroups(7),
// Documentation/admin-guide/cgroup-v2.rst).
//
// A [Group] is a directory that [Make] makes; a process is started in it by its descriptor (CLONE_INTO_CGROUP), and it is
// removed when the last one has ended. Groups are kept below a parent: "unionfsd" in the root of the hierarchy for root
// of the host, as with Docker's driver cgroupfs. Who may not write there takes the nearest group above the own one that
// lets them: systemd delegates one to each user that is logged in, and to units with Delegate=yes. Whether one does is
// found out by trying: a group gives controllers to those below it only while no process is in itself.
package cgroup
