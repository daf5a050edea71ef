
# Not of Debian: what heartbeat's scripts tell it goes into its FIFO in one piece. The function above writes a message in
# up to three, and the reader of the FIFO forgets what it has of a message when its alarm rings, once a second
# (fifo_child in heartbeat/heartbeat.c): "Message with zero fields" in the log, and an address that nobody takes, for good.
ha_clustermsg() {
	printf '>>>\n%s\n<<<\n' "$(cat)" >> "$HA_FIFO"
}
