
# Not Debian's: heartbeat's scripts write a message into its FIFO in one piece. The function above writes up to three
# pieces, and the reader of the FIFO discards an incomplete message when its alarm rings, once a second (fifo_child in
# heartbeat/heartbeat.c). Then the log has "Message with zero fields", and no director ever takes the address.
ha_clustermsg() {
	printf '>>>\n%s\n<<<\n' "$(cat)" >> "$HA_FIFO"
}
