// Leads what arrives for a published port to the sockets that serve it, wherever those are bound and whoever holds the
// port itself. Runs for a connection's first packet, and for a datagram that no connected socket takes.
//
// Needs no header of the system: what it uses of the kernel is part of its binary interface, and is written out here.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))

enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6, IPPROTO_UDP = 17, SK_DROP = 0, SK_PASS = 1 };
enum { MAP_HASH = 1, MAP_SOCKMAP = 15, NO_PREALLOC = 1 };

struct bpf_sk_lookup {
	u64 socket;
	u32 family;
	u32 protocol;
	u32 remote_ip4;
	u32 remote_ip6[4];
	u16 remote_port;
	u16 zero;
	u32 local_ip4; // in the order of the network
	u32 local_ip6[4];
	u32 local_port; // in the order of the host
	u32 ingress_ifindex;
};

struct map {
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 flags;
};

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*release)(void *socket) = (void *)86;
static long (*assign)(struct bpf_sk_lookup *context, void *socket, u64 flags) = (void *)124;

// sys/src/bpf/load.rs writes the same. An IPv4 address fills the first word; all zeroes are every address. Port 0 is
// every port of an address that has no entry of its own.
struct key {
	u32 address[4];
	u16 port;
	u8 protocol;
	u8 family;
};

// What becomes of them. Refused is as if nobody listened: a reset, or an ICMP message.
enum { STEERED = 1, REFUSED = 2 };

// Which ports are steered or refused.
struct map SECTION("maps") ports = {
	.type = MAP_HASH,
	.key_size = sizeof(struct key),
	.value_size = sizeof(u32),
	.max_entries = 131072,
	.flags = NO_PREALLOC,
};

// To where: one socket for each family and protocol. Where it is one of several that share a port, the kernel goes on
// to choose among those.
struct map SECTION("maps") sockets = {
	.type = MAP_SOCKMAP,
	.key_size = sizeof(u32),
	.value_size = sizeof(u32),
	.max_entries = 4,
};

SECTION("sk_lookup") int steer(struct bpf_sk_lookup *context)
{
	struct key key = {
		.port = context->local_port,
		.protocol = context->protocol,
		.family = context->family,
	};
	u32 slot;

	if (context->protocol == IPPROTO_TCP)
		slot = 0;
	else if (context->protocol == IPPROTO_UDP)
		slot = 2;
	else
		return SK_PASS;
	if (context->family == AF_INET) {
		key.address[0] = context->local_ip4;
	} else if (context->family == AF_INET6) {
		key.address[0] = context->local_ip6[0];
		key.address[1] = context->local_ip6[1];
		key.address[2] = context->local_ip6[2];
		key.address[3] = context->local_ip6[3];
		slot += 1;
	} else {
		return SK_PASS;
	}
	u32 *found = lookup(&ports, &key);
	if (!found) {
		key.port = 0;
		found = lookup(&ports, &key);
	}
	if (!found) {
		key.port = context->local_port;
		key.address[0] = key.address[1] = key.address[2] = key.address[3] = 0;
		found = lookup(&ports, &key);
	}
	if (!found)
		return SK_PASS;
	if (*found == REFUSED)
		return SK_DROP;
	void *socket = lookup(&sockets, &slot);
	if (!socket)
		return SK_PASS;
	// What cannot be steered goes where it would have gone.
	assign(context, socket, 0);
	release(socket);
	return SK_PASS;
}

char SECTION("license") licence[] = "Apache-2.0";
