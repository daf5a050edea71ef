# The addresses among heartbeat's resources, and a function: the interface of this node that has an address. Sourced.
addresses=$(sed '/^#/d' /etc/ha.d/haresources | grep -o 'IPaddr2::[0-9.]*' | cut -d : -f 3)
interface() { ip -o addr | awk -v "inet=$1/" '$3 == "inet" && index($4, inet) == 1 { print $2; exit }'; }
