/* What two runs have in common: a hash of all that each node sent, with times. It does not depend on how a client cuts
 * its runs into pieces, nor on which node was simulated first.
 */
#include "lab.h"

#include <errno.h>
#include <string.h>

/* FOLDER/trace has a line for each frame and each write to a console: time, place, bytes, hash of the content. A replay
 * finds there what differs first.
 */
static FILE *file;

void trace_open(void)
{
	char path[sizeof lab.folder + 8];

	snprintf(path, sizeof path, "%s/trace", lab.folder);
	file = fopen(path, "we");
	if (!file)
		die("%s: %s", path, strerror(errno));
}

void trace_flush(void)
{
	fflush(file);
}

void trace_reset(struct node *node)
{
	XXH3_128bits_reset(node->hash);
}

static void add(struct node *node, char kind, uint64_t at, uint64_t place, const uint8_t *bytes, size_t length)
{
	uint64_t head[4] = { (uint64_t)kind, at, place, length };

	XXH3_128bits_update(node->hash, head, sizeof head);
	XXH3_128bits_update(node->hash, bytes, length);
}

void trace_frame(const struct device *nic, uint64_t at, const struct frame *frame)
{
	nic->node->frames++;
	fprintf(file, "%llu %s.%d %d %016llx\n", (unsigned long long)at, nic->node->name, nic->number, frame->length,
		(unsigned long long)XXH3_64bits(frame->bytes, (size_t)frame->length));
	add(nic->node, 'f', at, (uint64_t)nic->number, frame->bytes, (size_t)frame->length);
}

void trace_bytes(const struct device *serial, uint64_t at, const uint8_t *bytes, size_t length)
{
	fprintf(file, "%llu %s.serial %zu %016llx\n", (unsigned long long)at, serial->node->name, length,
		(unsigned long long)XXH3_64bits(bytes, length));
	add(serial->node, 'c', at, 0, bytes, length);
}

/* The hash of the whole lab, as 32 hexadecimal digits. */
void trace_hash(char text[33])
{
	XXH3_state_t *all = XXH3_createState();
	XXH128_canonical_t digest;

	if (!all)
		die("no memory");
	XXH3_128bits_reset(all);
	for (int i = 0; i < lab.node_count; i++) {
		XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(lab.nodes[i].hash));
		XXH3_128bits_update(all, digest.digest, sizeof digest.digest);
	}
	XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(all));
	XXH3_freeState(all);
	for (int i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", digest.digest[i]);
}
