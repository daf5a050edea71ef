/* Which frames: pcap filter expressions, compiled once. */
#include "lab.h"

#include <pcap/pcap.h>
#include <stdlib.h>

struct filter {
	struct bpf_program program;
};

/* NULL: not a filter, and the sentence says why. An empty text takes every frame. */
struct filter *filter_make(const char *text, char sentence[MAX_SENTENCE])
{
	struct filter *filter = must_allocate(sizeof *filter);
	pcap_t *device = pcap_open_dead(DLT_EN10MB, MAX_FRAME);

	if (!device)
		die("no memory");
	if (pcap_compile(device, &filter->program, text ? text : "", 1, PCAP_NETMASK_UNKNOWN)) {
		snprintf(sentence, MAX_SENTENCE, "'%.150s' is no filter: %.120s", text ? text : "", pcap_geterr(device));
		free(filter);
		filter = NULL;
	}
	pcap_close(device);
	return filter;
}

bool filter_takes(const struct filter *filter, const struct frame *frame)
{
	struct pcap_pkthdr header = { .caplen = (bpf_u_int32)frame->length, .len = (bpf_u_int32)frame->length };

	return pcap_offline_filter(&filter->program, &header, frame->bytes) > 0;
}

void filter_free(struct filter *filter)
{
	pcap_freecode(&filter->program);
	free(filter);
}
