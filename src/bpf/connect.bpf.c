/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * One record in a ring for each connect() on a TCP socket. The programs watch:
 * whatever they see, the connect() goes on as it would have.
 *
 * lsm and fentry are one program on one function, and get the arguments of
 * security_socket_connect(); cgroup/connect4 and connect6 get a context made by
 * the kernel. Both are called with the address that the kernel has copied from
 * the caller, so that no other thread can change what is reported.
 *
 * Built by build.sh; src/wire/connect.rs reads what is written here.
 */
#include "kernel.h"

struct record {
	u64 at_ns;
	u64 cookie;
	u64 netns_cookie; /* 0: this hook cannot tell */
	u64 cgroup_id;
	u32 netns; /* inode number; 0: this hook cannot tell */
	u32 pid;
	u32 tid;
	u32 uid;
	u8 comm[16];
	u32 address[4]; /* IPv4: in the first */
	u16 port; /* as on the wire, like the address */
	u8 hook;
	u8 family;
	u32 mptcp;
};

enum hook { HOOK_LSM = 1, HOOK_FENTRY = 2, HOOK_CGROUP = 3 };

/* Its size is set by the loader. */
struct {
	NUMBER(type, MAP_RINGBUF);
	NUMBER(max_entries, 4096);
} records SEC(".maps");

/* Records that found the ring full. */
struct {
	NUMBER(type, MAP_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, u64);
} lost SEC(".maps");

/* The process whose connects are left out: sockwatch. */
struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, u32);
} own SEC(".maps");

/* A record with the caller filled in, or none: the caller is sockwatch, or the
 * ring is full. */
INLINE struct record *begin(enum hook hook, u8 family, u16 port)
{
	u64 pid_tgid = get_current_pid_tgid();
	u32 zero = 0;
	u32 *self = map_lookup_elem(&own, &zero);
	if (self && *self == pid_tgid >> 32)
		return 0;
	struct record *record = ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		/* This CPU's own, yet a program of another context may come between. */
		u64 *count = map_lookup_elem(&lost, &zero);
		if (count)
			__sync_fetch_and_add(count, 1);
		return 0;
	}
	record->at_ns = ktime_get_ns();
	record->cgroup_id = get_current_cgroup_id();
	record->pid = pid_tgid >> 32;
	record->tid = pid_tgid;
	record->uid = get_current_uid_gid();
	get_current_comm(record->comm, sizeof(record->comm));
	record->port = port;
	record->hook = hook;
	record->family = family;
	return record;
}

INLINE void v4(struct record *record, u32 address)
{
	record->address[0] = address;
	record->address[1] = 0;
	record->address[2] = 0;
	record->address[3] = 0;
}

INLINE void v6(struct record *record, const u32 *address)
{
	record->address[0] = address[0];
	record->address[1] = address[1];
	record->address[2] = address[2];
	record->address[3] = address[3];
}

/* security_socket_connect(sock, address, addrlen). It is called for every family
 * and in every state, before the protocol has looked at anything. So what the
 * protocol will refuse without a look at the destination is no connect: an
 * address of another family than the socket's, or too short for its own. */
INLINE void security(enum hook hook, u64 *arguments)
{
	struct socket *sock = (struct socket *)arguments[0];
	const void *address = (const void *)arguments[1];
	int length = (int)arguments[2];

	struct sock *sk = sock->sk;
	if (!sk || sock->type != SOCK_STREAM)
		return;
	u16 protocol = sk->sk_protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP)
		return;
	/* A second call asks how the first went. */
	if (sock->state != SS_UNCONNECTED || sk->__sk_common.skc_state != TCP_CLOSE)
		return;

	/* SIN6_LEN_RFC2133: without the scope. Nothing beyond it is read. */
	struct sockaddr_in6 to = {};
	u16 family = sk->__sk_common.skc_family;
	if (family == AF_INET ? length < (int)sizeof(struct sockaddr_in) : length < 24)
		return;
	if (probe_read_kernel(&to, 16, address) || to.sin6_family != family)
		return;
	if (family == AF_INET6) {
		if (probe_read_kernel(&to, 24, address))
			return;
	} else if (family != AF_INET) {
		return;
	}

	struct record *record = begin(hook, family, to.sin6_port);
	if (!record)
		return;
	record->cookie = get_socket_cookie(sk);
	record->netns_cookie = 0;
	record->netns = sk->__sk_common.skc_net.net->ns.inum;
	record->mptcp = protocol == IPPROTO_MPTCP;
	if (family == AF_INET)
		v4(record, to.sin6_flowinfo); /* sin_addr lies there */
	else
		v6(record, to.sin6_addr);
	ringbuf_submit(record, 0);
}

SEC("lsm/socket_connect") int lsm_connect(u64 *arguments)
{
	security(HOOK_LSM, arguments);
	return 0;
}

SEC("fentry/security_socket_connect") int fentry_connect(u64 *arguments)
{
	security(HOOK_FENTRY, arguments);
	return 0;
}

/* What only BTF tells of a socket. */
struct details {
	u32 netns;
	u32 mptcp;
};

/* Called for an unconnected TCP socket only, and with an address that is long
 * enough, but perhaps of another family: the protocol looks at that next. */
INLINE void cgroup(struct bpf_sock_addr *context, u32 family, struct details details)
{
	if (context->user_family != family || context->family != family)
		return;
	struct record *record = begin(HOOK_CGROUP, family, context->user_port);
	if (!record)
		return;
	record->cookie = get_socket_cookie(context);
	record->netns_cookie = get_netns_cookie(context);
	record->netns = details.netns;
	record->mptcp = details.mptcp;
	if (family == AF_INET) {
		v4(record, context->user_ip4);
	} else {
		u32 address[4] = {
			context->user_ip6[0],
			context->user_ip6[1],
			context->user_ip6[2],
			context->user_ip6[3],
		};
		v6(record, address);
	}
	ringbuf_submit(record, 0);
}

INLINE int is_tcp(struct bpf_sock_addr *context)
{
	return context->type == SOCK_STREAM
	       && (context->protocol == IPPROTO_TCP || context->protocol == IPPROTO_MPTCP);
}

INLINE int plain(struct bpf_sock_addr *context, u32 family)
{
	struct details details = { 0, context->protocol == IPPROTO_MPTCP };
	if (is_tcp(context))
		cgroup(context, family, details);
	return 1;
}

/* The same with BTF: pointers of known type, read without a helper that
 * lockdown would refuse. MPTCP connects by TCP sockets of its own; the first is
 * the caller's connect(), later ones are the kernel's. */
INLINE int detailed(struct bpf_sock_addr *context, u32 family)
{
	if (!is_tcp(context))
		return 1;
	struct details details = { 0, context->protocol == IPPROTO_MPTCP };
	void *socket = (void *)context->sk;
	if (!socket)
		return 1;
	struct tcp_sock *tcp = skc_to_tcp_sock(socket);
	if (tcp) {
		struct sock *sk = &tcp->inet_conn.icsk_inet.sk;
		details.netns = sk->__sk_common.skc_net.net->ns.inum;
		struct mptcp_sock *mptcp = skc_to_mptcp_sock(socket);
		if (mptcp) {
			if (mptcp->first != sk)
				return 1;
			details.mptcp = 1;
		}
	}
	cgroup(context, family, details);
	return 1;
}

SEC("cgroup/connect4") int plain_connect4(struct bpf_sock_addr *context)
{
	return plain(context, AF_INET);
}

SEC("cgroup/connect6") int plain_connect6(struct bpf_sock_addr *context)
{
	return plain(context, AF_INET6);
}

SEC("cgroup/connect4") int detailed_connect4(struct bpf_sock_addr *context)
{
	return detailed(context, AF_INET);
}

SEC("cgroup/connect6") int detailed_connect6(struct bpf_sock_addr *context)
{
	return detailed(context, AF_INET6);
}

/* The kernel gives some helpers to GPL-compatible programs alone. */
char licence[] SEC("license") = "Dual MIT/GPL";
