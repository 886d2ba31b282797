// The straight way for packets of overlay networks: from a sandbox into the tunnel or into a sandbox beside it, and from
// the tunnel into a sandbox, without the bridge between. Runs where packets come in: by the host's end of a sandbox's
// link, and by the tunnel.
//
// The bridge's table of rules does not see what goes this way, so only what that table would let through goes it: the
// plain traffic of a sandbox under its own addresses to somebody who is known. All else, and whatever is not plain at
// first sight, goes on to the bridge, as everything does where this program is not.
//
// Needs no header of the system: what it uses of the kernel is part of its binary interface, and is written out here.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

enum { MAP_HASH = 1, NO_PREALLOC = 1 };
enum { GO_ON = -1, TO_THIS_HOST = 0 };
enum { TCP = 6, UDP = 17, DHCP = 67, DHCPV6 = 547 };
enum { MULTICAST = 1, FRAGMENT = 0x3fff };

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NETWORK16(number) ((u16)__builtin_bswap16(number))
#else
#define NETWORK16(number) ((u16)(number))
#endif

struct skb {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
	u32 tc_index;
	u32 cb[5];
	u32 hash;
	u32 tc_classid;
	u32 data;
	u32 data_end;
	u32 napi_id;
	u32 sockets[13];
	u32 data_meta;
	u64 flow_keys __attribute__((aligned(8)));
	u64 tstamp;
	u32 wire_len;
	u32 gso_segs;
	u64 sk;
	u32 gso_size;
};

struct map {
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 flags;
};

struct ethernet {
	u8 to[6];
	u8 from[6];
	u16 type;
} __attribute__((packed));

struct ipv4 {
	u8 version_and_length;
	u8 service;
	u16 length;
	u16 id;
	u16 fragment;
	u8 hops;
	u8 protocol;
	u16 checksum;
	u32 from;
	u32 to;
	u16 from_port;
} __attribute__((packed));

struct ipv6 {
	u32 version_and_flow;
	u16 length;
	u8 protocol;
	u8 hops;
	u32 from[4];
	u32 to[4];
	u16 from_port;
} __attribute__((packed));

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*redirect)(u32 link, u64 flags) = (void *)23;
static long (*change_type)(struct skb *packet, u32 type) = (void *)32;
static long (*redirect_peer)(u32 link, u64 flags) = (void *)155;

// sys/src/bpf/overlay/loaded.rs writes the same. A network is known by the number of its tunnel.

struct place {
	u32 network;
	u8 mac[6];
	u16 zero;
};

struct station {
	u32 link;
	u32 is_here;
};

struct port {
	u32 network;
	u32 ip4; // zero: none
	u32 ip6[4];
	u8 mac[6];
	u16 zero;
};

// Who is on which network, here and on other hosts.
struct map SECTION("maps") stations = {
	.type = MAP_HASH,
	.key_size = sizeof(struct place),
	.value_size = sizeof(struct station),
	.max_entries = 262144,
	.flags = NO_PREALLOC,
};

// What may come in by which link.
struct map SECTION("maps") ports = {
	.type = MAP_HASH,
	.key_size = sizeof(u32),
	.value_size = sizeof(struct port),
	.max_entries = 65536,
	.flags = NO_PREALLOC,
};

INLINE struct station *station_of(u32 network, const struct ethernet *frame)
{
	struct place place = { .network = network };

	if (frame->to[0] & MULTICAST)
		return 0;
	__builtin_memcpy(place.mac, frame->to, sizeof(place.mac));
	return lookup(&stations, &place);
}

INLINE long hand_over(struct skb *packet, const struct station *station)
{
	u32 link = station->link;

	// The kernel has marked it as somebody else's, because of its address.
	change_type(packet, TO_THIS_HOST);
	return redirect_peer(link, 0);
}

INLINE int is_own(const struct port *port, const struct ethernet *frame, const void *end)
{
	for (int i = 0; i < 6; i++)
		if (frame->from[i] != port->mac[i])
			return 0;
	if (frame->type == NETWORK16(0x0800)) {
		const struct ipv4 *header = (const void *)(frame + 1);

		if ((const void *)(header + 1) > end || header->version_and_length != 0x45)
			return 0;
		if (!port->ip4 || header->from != port->ip4 || header->fragment & NETWORK16(FRAGMENT))
			return 0;
		return header->protocol != UDP || header->from_port != NETWORK16(DHCP);
	}
	if (frame->type == NETWORK16(0x86dd)) {
		const struct ipv6 *header = (const void *)(frame + 1);

		if ((const void *)(header + 1) > end || (header->protocol != TCP && header->protocol != UDP))
			return 0;
		if (!port->ip6[0] || header->from[0] != port->ip6[0] || header->from[1] != port->ip6[1] ||
		    header->from[2] != port->ip6[2] || header->from[3] != port->ip6[3])
			return 0;
		return header->protocol != UDP || header->from_port != NETWORK16(DHCPV6);
	}
	return 0;
}

// What a sandbox sends.
SECTION("classifier") int outward(struct skb *packet)
{
	const struct ethernet *frame = (const void *)(u64)packet->data;
	const void *end = (const void *)(u64)packet->data_end;
	u32 link = packet->ifindex;
	const struct port *port = lookup(&ports, &link);

	if (!port || (const void *)(frame + 1) > end || packet->vlan_present || !is_own(port, frame, end))
		return GO_ON;
	const struct station *station = station_of(port->network, frame);
	if (!station)
		return GO_ON;
	return station->is_here ? hand_over(packet, station) : redirect(station->link, 0);
}

// What comes from other hosts.
SECTION("classifier") int inward(struct skb *packet)
{
	const struct ethernet *frame = (const void *)(u64)packet->data;
	const void *end = (const void *)(u64)packet->data_end;

	if ((const void *)(frame + 1) > end || packet->vlan_present)
		return GO_ON;
	const struct station *station = station_of(packet->ifindex, frame);
	if (!station || !station->is_here)
		return GO_ON;
	return hand_over(packet, station);
}

char SECTION("license") licence[] = "Apache-2.0";
