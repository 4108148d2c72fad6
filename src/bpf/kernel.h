/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The kernel as connect.bpf.c sees it: the few helpers it calls, by their
 * numbers in linux/bpf.h, and of each structure the members it reads. Where
 * those lie is for the loader to find in the running kernel's BTF ("compile
 * once, run everywhere"); that is what preserve_access_index asks for. Written
 * by hand so that a build needs no kernel headers and no generated vmlinux.h.
 */
#ifndef SOCKWATCH_KERNEL_H
#define SOCKWATCH_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define RELOCATED __attribute__((preserve_access_index))

/* How a map is declared (BTF-defined maps): the sizes stand in types. */
#define NUMBER(name, value) int (*name)[value]
#define TYPE(name, type) type *name

/* enum bpf_map_type */
#define MAP_ARRAY 2
#define MAP_PERCPU_ARRAY 6
#define MAP_RINGBUF 27

/* enum bpf_func_id */
static void *(*const map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const ktime_get_ns)(void) = (void *)5;
static u64 (*const get_current_pid_tgid)(void) = (void *)14;
static u64 (*const get_current_uid_gid)(void) = (void *)15;
static long (*const get_current_comm)(void *buffer, u32 size) = (void *)16;
static u64 (*const get_socket_cookie)(void *context_or_socket) = (void *)46;
static u64 (*const get_current_cgroup_id)(void) = (void *)80;
static long (*const probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static u64 (*const get_netns_cookie)(void *context) = (void *)122;
static void *(*const ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const ringbuf_submit)(void *data, u64 flags) = (void *)132;

/* linux/socket.h, linux/net.h, linux/in.h, net/tcp_states.h */
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define TCP_CLOSE 7
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262

struct ns_common {
	u32 inum;
} RELOCATED;

struct net {
	struct ns_common ns;
} RELOCATED;

typedef struct {
	struct net *net;
} RELOCATED possible_net_t;

struct sock_common {
	u16 skc_family;
	volatile u8 skc_state;
	possible_net_t skc_net;
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
} RELOCATED;

/* A member is looked for by its name and kind: an int would not be found. */
typedef enum {
	SS_UNCONNECTED = 1,
} socket_state;

struct socket {
	socket_state state;
	short type;
	struct sock *sk;
} RELOCATED;

struct inet_sock {
	struct sock sk;
} RELOCATED;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} RELOCATED;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
} RELOCATED;

struct mptcp_sock {
	struct sock *first;
} RELOCATED;

static struct tcp_sock *(*const skc_to_tcp_sock)(void *socket) = (void *)137;
static struct mptcp_sock *(*const skc_to_mptcp_sock)(void *socket) = (void *)196;

/* The rest is ABI, the same on every kernel: linux/in.h, linux/in6.h. */
struct sockaddr_in {
	u16 sin_family;
	u16 sin_port;
	u32 sin_addr;
	u8 sin_zero[8];
};

struct sockaddr_in6 {
	u16 sin6_family;
	u16 sin6_port;
	u32 sin6_flowinfo;
	u32 sin6_addr[4];
	u32 sin6_scope_id;
};

/* The context of cgroup/connect4 and connect6 (linux/bpf.h). */
struct bpf_sock_addr {
	u32 user_family;
	u32 user_ip4;
	u32 user_ip6[4];
	u32 user_port;
	u32 family;
	u32 type;
	u32 protocol;
	u32 msg_src_ip4;
	u32 msg_src_ip6[4];
	u64 sk __attribute__((aligned(8)));
};

#endif
