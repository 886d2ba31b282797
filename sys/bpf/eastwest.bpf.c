// Puts a backend's address in the place of a service's own when a program connects, so that the traffic goes straight to
// the backend. The program goes on seeing the service: in getpeername, and as the source of datagrams.
//
// Attached to a cgroup, it runs for every connect of the machine, and for every datagram that is sent to an address. The
// first thing it asks is whether the socket's network namespace is one of ours: for all others it does nothing at all.
// Whatever it cannot decide it leaves alone, which leads to the relay that serves every service anyhow.
//
// Needs no header of the system: what it uses of the kernel is part of its binary interface, and is written out here.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define barrier() asm volatile("" ::: "memory")
#define INLINE static inline __attribute__((always_inline))

enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6, IPPROTO_UDP = 17, GO_ON = 1 };
enum { MAP_HASH = 1, MAP_LRU_HASH = 9, MAP_SK_STORAGE = 24, NO_PREALLOC = 1, CREATE = 1 };

enum { CONNECTED = 1 };

struct bpf_sock {
	u32 before[3];
	u32 protocol;
	u32 others[14];
	u32 state;
};

struct bpf_sock_addr {
	u32 user_family;
	u32 user_ip4; // in the order of the network, like all addresses and ports here
	u32 user_ip6[4];
	u32 user_port;
	u32 family;
	u32 type;
	u32 protocol;
	u32 msg_src_ip4;
	u32 msg_src_ip6[4];
	struct bpf_sock *socket __attribute__((aligned(8)));
};

struct map {
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 flags;
};

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*forget)(void *map, const void *key) = (void *)3;
static u64 (*now)(void) = (void *)5;
static u32 (*at_random)(void) = (void *)7;
static u64 (*number_of)(void *context) = (void *)46;
static void *(*memory_of)(void *map, void *socket, void *value, u64 flags) = (void *)107;
static u64 (*namespace_of)(void *context) = (void *)122;

// sys/src/bpf/eastwest/layout.rs writes the same.

struct member {
	u64 namespace;
	u32 network; // 0: of any
	u32 zero;
};

// An IPv4 address fills the first word. Port 0: every port that has no entry of its own.
struct place {
	u32 address[4];
	u16 port;
	u8 protocol;
	u8 family;
};

struct service {
	struct place place; // the key again: see `find`
	u32 network;
	u64 slot;
	u64 affinity; // for how many nanoseconds a client keeps its backend; 0: it does not
	u32 count;
	u32 zero;
};

struct seat {
	u64 slot;
	u32 number;
	u32 zero;
};

struct backend {
	u64 slot;
	u32 address[4];
	u16 port; // 0: the one that was asked for
	u16 zero[3];
};

// Of a service, by its address: a client has one backend for all ports of it.
struct client {
	u64 namespace;
	u32 service[4];
};

struct choice {
	u32 address[4];
	u64 until;
};

struct told {
	u64 namespace;
	u32 address[4];
};

struct flow {
	u32 asked[4];
	u32 backend[4];
};

// What one socket has been told, and what it believes.
struct pair {
	struct place asked;
	u32 zero;
	struct backend backend;
};

enum { PAIRS = 8 };

struct memory {
	u32 next;
	u32 zero;
	struct pair pairs[PAIRS];
};

// Which namespaces are ours, and on which networks each is.
struct map SECTION("maps") members = {
	.type = MAP_HASH,
	.key_size = sizeof(struct member),
	.value_size = sizeof(u32),
	.max_entries = 65536,
	.flags = NO_PREALLOC,
};

struct map SECTION("maps") services = {
	.type = MAP_HASH,
	.key_size = sizeof(struct place),
	.value_size = sizeof(struct service),
	.max_entries = 65536,
	.flags = NO_PREALLOC,
};

// The backends of a service by number, and the same ones by themselves: whether one is still there.
struct map SECTION("maps") backends = {
	.type = MAP_HASH,
	.key_size = sizeof(struct seat),
	.value_size = sizeof(struct backend),
	.max_entries = 262144,
	.flags = NO_PREALLOC,
};

struct map SECTION("maps") live = {
	.type = MAP_HASH,
	.key_size = sizeof(struct backend),
	.value_size = sizeof(u32),
	.max_entries = 262144,
	.flags = NO_PREALLOC,
};

struct map SECTION("maps") choices = {
	.type = MAP_LRU_HASH,
	.key_size = sizeof(struct client),
	.value_size = sizeof(struct choice),
	.max_entries = 16384,
};

// Namespaces that have connections to a backend: where to look for them when it is gone. One that is pushed out here has
// them end by themselves.
struct map SECTION("maps") connected = {
	.type = MAP_LRU_HASH,
	.key_size = sizeof(struct told),
	.value_size = sizeof(u32),
	.max_entries = 32768,
};

// Connected datagram sockets that have been led somewhere, until they are closed or have another partner. The kernel shows
// what it keeps with a socket for streams alone.
struct map SECTION("maps") flows = {
	.type = MAP_HASH,
	.key_size = sizeof(u64),
	.value_size = sizeof(struct flow),
	.max_entries = 65536,
	.flags = NO_PREALLOC,
};

// Ends with its socket: no flood of other sockets can push it out.
struct map SECTION("maps") memories = {
	.type = MAP_SK_STORAGE,
	.key_size = sizeof(u32),
	.value_size = sizeof(struct memory),
	.flags = NO_PREALLOC,
};

INLINE int is_same_address(const u32 *a, const u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

INLINE void copy_address(u32 *to, const u32 *from)
{
#pragma unroll
	for (u32 word = 0; word < 4; word++)
		to[word] = from[word];
}

INLINE int is_same_place(const struct place *a, const struct place *b)
{
	return is_same_address(a->address, b->address) && a->port == b->port && a->protocol == b->protocol &&
	       a->family == b->family;
}

INLINE u16 port_of(const struct backend *backend, u16 asked)
{
	return backend->port ? backend->port : asked;
}

// An entry that is removed may become another one while it is being read. So what tells whose it is, which is written
// first, is read last.
INLINE int find(const struct place *asked, struct service *service)
{
	struct place key = *asked;
	struct service *found = lookup(&services, &key);

	if (!found) {
		key.port = 0;
		found = lookup(&services, &key);
		if (!found)
			return 0;
	}
	*service = *found;
	barrier();
	return is_same_place(&found->place, &key) && service->count > 0;
}

INLINE int is_member(u64 namespace, u32 network)
{
	struct member member = {.namespace = namespace, .network = network};

	return lookup(&members, &member) != 0;
}

INLINE int is_seated(const struct service *service, u32 number, struct backend *chosen)
{
	struct seat seat = {.slot = service->slot, .number = number};
	struct backend *backend = lookup(&backends, &seat);

	if (!backend)
		return 0;
	*chosen = *backend;
	barrier();
	return backend->slot == service->slot;
}

INLINE int pick(const struct service *service, u64 namespace, struct backend *chosen)
{
	struct client client = {.namespace = namespace};
	struct choice *before;

	if (service->affinity) {
		copy_address(client.service, service->place.address);
		before = lookup(&choices, &client);
		// All backends of one entry have the same port.
		if (before && before->until > now() && is_seated(service, 0, chosen)) {
			copy_address(chosen->address, before->address);
			if (lookup(&live, chosen)) {
				before->until = now() + service->affinity;
				return 1;
			}
		}
	}
	if (!is_seated(service, at_random() % service->count, chosen))
		return 0;
	if (service->affinity) {
		struct choice choice = {.until = now() + service->affinity};
		copy_address(choice.address, chosen->address);
		update(&choices, &client, &choice, 0);
	}
	return 1;
}

INLINE void remember(struct memory *memory, u32 number, const struct place *asked, const struct backend *chosen)
{
	struct pair *pair = &memory->pairs[number % PAIRS];

	pair->asked = *asked;
	pair->backend = *chosen;
}

// For when the backend is gone.
INLINE void note(struct bpf_sock_addr *context, u64 namespace, const struct place *asked, const struct backend *chosen)
{
	struct told told = {.namespace = namespace};
	struct flow flow = {};
	u32 yes = 1;

	copy_address(told.address, chosen->address);
	copy_address(flow.asked, asked->address);
	copy_address(flow.backend, chosen->address);
	if (!lookup(&connected, &told))
		update(&connected, &told, &yes, 0);
	if (asked->protocol == IPPROTO_UDP) {
		u64 number = number_of(context);
		update(&flows, &number, &flow, 0);
	}
}

INLINE void forget_all(struct memory *memory)
{
#pragma unroll
	for (u32 number = 0; number < PAIRS; number++)
		memory->pairs[number].backend.slot = 0;
}

// Where to connect to instead; a socket that is connected has one partner.
INLINE int connecting(struct bpf_sock_addr *context, const struct place *asked, struct backend *chosen)
{
	u64 namespace = namespace_of(context);
	struct memory *memory;
	struct service service;

	if (asked->protocol != IPPROTO_TCP && asked->protocol != IPPROTO_UDP)
		return 0;
	if (!is_member(namespace, 0) || !context->socket)
		return 0;
	if (!find(asked, &service) || !is_member(namespace, service.network)) {
		memory = memory_of(&memories, context->socket, 0, 0);
		if (memory) {
			u64 number = number_of(context);
			forget_all(memory);
			forget(&flows, &number);
		}
		return 0;
	}
	memory = memory_of(&memories, context->socket, 0, CREATE);
	if (!memory)
		return 0;
	forget_all(memory);
	if (!pick(&service, namespace, chosen))
		return 0;
	remember(memory, 0, asked, chosen);
	memory->next = 1;
	note(context, namespace, asked, chosen);
	return 1;
}

// Where to send this datagram instead. One socket may send to many services, and stays with the backend it has had of
// each while that is there.
INLINE int sending(struct bpf_sock_addr *context, const struct place *asked, struct backend *chosen)
{
	u64 namespace = namespace_of(context);
	struct memory *memory;
	struct service service;
	u32 number;

	if (asked->protocol != IPPROTO_UDP)
		return 0;
	if (!is_member(namespace, 0) || !context->socket)
		return 0;
	if (!find(asked, &service) || !is_member(namespace, service.network)) {
		// Sent to a backend by its own name: so answers come from there under that name. Not from a socket that is
		// connected: it hears its partner alone, and the kernel shows what IPv6 sockets send by IPv4 as if they
		// had named that partner.
		if (context->socket->state == CONNECTED)
			return 0;
		memory = memory_of(&memories, context->socket, 0, 0);
		if (!memory)
			return 0;
#pragma unroll
		for (number = 0; number < PAIRS; number++) {
			struct pair *pair = &memory->pairs[number];
			if (pair->backend.slot && is_same_address(pair->backend.address, asked->address) &&
			    port_of(&pair->backend, pair->asked.port) == asked->port)
				pair->backend.slot = 0;
		}
		return 0;
	}
	memory = memory_of(&memories, context->socket, 0, CREATE);
	if (!memory)
		return 0;
	number = PAIRS;
#pragma unroll
	for (u32 other = 0; other < PAIRS; other++) {
		struct pair *pair = &memory->pairs[other];
		if (pair->backend.slot && is_same_place(&pair->asked, asked)) {
			*chosen = pair->backend;
			if (chosen->slot == service.slot && lookup(&live, chosen))
				return 1;
			number = other;
		}
	}
	if (!pick(&service, namespace, chosen))
		return 0;
	if (number == PAIRS)
		number = memory->next++;
	remember(memory, number, asked, chosen);
	return 1;
}

// Under which address the program knows this partner of its socket.
INLINE int naming(struct bpf_sock_addr *context, const u32 *address, u16 port, struct place *asked)
{
	struct memory *memory;
	int found = 0;

	if (!context->socket)
		return 0;
	memory = memory_of(&memories, context->socket, 0, 0);
	if (!memory)
		return 0;
#pragma unroll
	for (u32 number = 0; number < PAIRS; number++) {
		struct pair *pair = &memory->pairs[number];
		if (pair->backend.slot && is_same_address(pair->backend.address, address) &&
		    port_of(&pair->backend, pair->asked.port) == port) {
			*asked = pair->asked;
			found = 1;
		}
	}
	return found;
}

INLINE struct place asked4(struct bpf_sock_addr *context)
{
	struct place asked = {
		.address = {context->user_ip4},
		.port = context->user_port,
		.protocol = context->protocol,
		.family = AF_INET,
	};
	return asked;
}

// ::ffff:0:0/96 is IPv4.
INLINE int is_mapped(const u32 *address)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	const u32 ones = 0xffff0000;
#else
	const u32 ones = 0x0000ffff;
#endif
	return address[0] == 0 && address[1] == 0 && address[2] == ones;
}

INLINE struct place asked6(struct bpf_sock_addr *context)
{
	struct place asked = {
		.address = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]},
		.port = context->user_port,
		.protocol = context->protocol,
		.family = AF_INET6,
	};
	if (is_mapped(asked.address)) {
		asked.address[0] = asked.address[3];
		asked.address[1] = asked.address[2] = asked.address[3] = 0;
		asked.family = AF_INET;
	}
	return asked;
}

INLINE void answer4(struct bpf_sock_addr *context, const u32 *address, u16 port)
{
	context->user_ip4 = address[0];
	context->user_port = port;
}

INLINE void answer6(struct bpf_sock_addr *context, u8 family, const u32 *address, u16 port)
{
	if (family == AF_INET) {
		context->user_ip6[3] = address[0];
	} else {
		context->user_ip6[0] = address[0];
		context->user_ip6[1] = address[1];
		context->user_ip6[2] = address[2];
		context->user_ip6[3] = address[3];
	}
	context->user_port = port;
}

SECTION("cgroup/connect4") int connect4(struct bpf_sock_addr *context)
{
	struct place asked = asked4(context);
	struct backend chosen = {};

	if (connecting(context, &asked, &chosen))
		answer4(context, chosen.address, port_of(&chosen, asked.port));
	return GO_ON;
}

SECTION("cgroup/connect6") int connect6(struct bpf_sock_addr *context)
{
	struct place asked = asked6(context);
	struct backend chosen = {};

	if (connecting(context, &asked, &chosen))
		answer6(context, asked.family, chosen.address, port_of(&chosen, asked.port));
	return GO_ON;
}

SECTION("cgroup/sendmsg4") int sendmsg4(struct bpf_sock_addr *context)
{
	struct place asked = asked4(context);
	struct backend chosen = {};

	if (sending(context, &asked, &chosen))
		answer4(context, chosen.address, port_of(&chosen, asked.port));
	return GO_ON;
}

SECTION("cgroup/sendmsg6") int sendmsg6(struct bpf_sock_addr *context)
{
	struct place asked = asked6(context);
	struct backend chosen = {};

	if (sending(context, &asked, &chosen))
		answer6(context, asked.family, chosen.address, port_of(&chosen, asked.port));
	return GO_ON;
}

INLINE int name4(struct bpf_sock_addr *context)
{
	struct place partner = asked4(context), asked = {};

	if (naming(context, partner.address, partner.port, &asked))
		answer4(context, asked.address, asked.port);
	return GO_ON;
}

INLINE int name6(struct bpf_sock_addr *context)
{
	struct place partner = asked6(context), asked = {};

	if (naming(context, partner.address, partner.port, &asked))
		answer6(context, asked.family, asked.address, asked.port);
	return GO_ON;
}

SECTION("cgroup/recvmsg4") int recvmsg4(struct bpf_sock_addr *context)
{
	return name4(context);
}

SECTION("cgroup/recvmsg6") int recvmsg6(struct bpf_sock_addr *context)
{
	return name6(context);
}

SECTION("cgroup/getpeername4") int getpeername4(struct bpf_sock_addr *context)
{
	return name4(context);
}

SECTION("cgroup/getpeername6") int getpeername6(struct bpf_sock_addr *context)
{
	return name6(context);
}

SECTION("cgroup/sock_release") int release(struct bpf_sock *context)
{
	if (context->protocol == IPPROTO_UDP) {
		u64 number = number_of(context);
		forget(&flows, &number);
	}
	return GO_ON;
}

char SECTION("license") licence[] = "Apache-2.0";
