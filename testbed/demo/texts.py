"""What the demo says beside what it shows: title, exam question and restaurant of every step. Text only, no decisions.

Curly braces are names of the lab at hand (`testbed.demo.show.Show.names`). The exam questions are of the kind that the
CKA asks about a cluster; the answers are commands that work in one, whatever its add-on: words in capitals are to be
filled in. The restaurant chain is the same in every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Lesson:
    """The texts of one step.

    Attributes:
        title: What the step shows.
        question: What an exam would ask about it.
        answers: Commands that answer the question, each with a remark behind `#`.
        restaurant: The step in the words of the restaurant chain.
    """

    title: str
    question: str
    answers: tuple[str, ...]
    restaurant: str


LESSONS: Final[Mapping[str, Lesson]] = {
    "cluster": Lesson(
        title="A cluster comes up",
        question="Which network add-on does this cluster run, and is it healthy on every node?",
        answers=(
            "kubectl get nodes -o wide                   # Ready, internal addresses",
            "kubectl get daemonsets -A                   # the agent: one pod a node",
            "kubectl get pods -A -o wide                 # is one of them restarting?",
        ),
        restaurant=(
            "A chain of restaurants: each node is one. The pods are the chefs and waiters who work there, each with a "
            "staff number (the pod's address) that is unique in the whole chain. Between the restaurants drives a "
            "courier: the underlay."
        ),
    ),
    "node": Lesson(
        title="What the agent made on {node}",
        question="Which CNI plugin do pods on this node get, and to which interface are they connected?",
        answers=(
            "ls /etc/cni/net.d                           # the first file by name wins",
            "cat /etc/cni/net.d/FILE                     # 'type' names the plugin",
            "ip -d link show type bridge                 # the switch; its MTU",
            "ip address show BRIDGE                      # the pods' default gateway",
        ),
        restaurant=(
            "`weave` is the pass counter inside the restaurant. `vxlan-6784` is the packing table, where plates "
            "go into delivery boxes. The agent, the manager, has set up both; then it only keeps the phone list (the "
            "forwarding entries) that the managers exchange: who works in which restaurant. "
            "The VNI is the chain's stamp on every box."
        ),
    ),
    "pod": Lesson(
        title="A pod is created: the CNI call",
        question="A pod stays in ContainerCreating, its events say FailedCreatePodSandBox. Why?",
        answers=(
            "kubectl describe pod POD                    # the event quotes the CNI error",
            "ls /etc/cni/net.d /opt/cni/bin              # no config? no plugin binary?",
            "journalctl -u kubelet -u containerd         # the same, on the pod's node",
        ),
        restaurant=(
            "A new waiter starts. Head office gave this restaurant its own block of staff numbers, so the agent hands "
            "out {new_address} without asking anybody, and the waiter gets a place at the pass counter."
        ),
    ),
    "same-node": Lesson(
        title="Same node: the switch and nowhere else",
        question="Two pods of one node cannot reach each other, all else works. What can be wrong at all?",
        answers=(
            "kubectl get pods -o wide                    # really the same node?",
            "bridge link                                 # both plugged in, and up?",
            "kubectl get networkpolicy -A                # or does a policy forbid it?",
        ),
        restaurant=(
            "{sender} hands the plate to {near} over the pass counter. No box, no courier: nobody outside the "
            "restaurant notices."
        ),
    ),
    "cross-node": Lesson(
        title="Other node: a frame inside a frame",
        question="Pods reach each other on their own node, but not across nodes. What do you check?",
        answers=(
            "ip -d link show type vxlan                  # the add-on's DEVICE, PORT, MTU",
            "tcpdump -ni eth0 udp port PORT              # on both nodes: sent? received?",
            "iptables-save | grep -i drop                # is that port closed?",
            "bridge fdb show dev DEVICE                  # is the other node in the list?",
            "ping -M do -s MTU-28 POD-ADDRESS            # only big ones fail: the MTU",
        ),
        restaurant=(
            "The plate is for another restaurant: at the packing table it goes into a delivery box with {far_node} "
            "written outside (the outer address), as the phone list says. The staff number stays on the plate (the "
            "inner address). The walls of the box are 50 bytes, and the courier reads only the box: what is outside it."
        ),
    ),
    "routers": Lesson(
        title="On the way: {routers}",
        question="The nodes sit in different subnets. What must the routers between them know of the pods?",
        answers=(
            "ip route                                    # on a router: nodes only",
            "traceroute -n NODE-ADDRESS                  # from a node: routers are hops",
            "traceroute -n POD-ADDRESS                   # from a pod: one hop, no router",
            "ping -M do -s MTU-28 POD-ADDRESS            # is a link on the way narrower?",
        ),
        restaurant=(
            "{routers} is a junction on the courier's way. The courier crosses out a number on the box (the TTL), so "
            "that no box drives in circles for ever, and takes the next street. Nobody opens the box."
        ),
    ),
    "reply": Lesson(
        title="The reply takes the same way back",
        question="Requests arrive at the other node, but no reply comes back. Where do you look?",
        answers=(
            "tcpdump -ni eth0 udp port PORT              # far node: does a reply leave?",
            "bridge fdb show dev DEVICE                  # far node: is the near one in it?",
            "ip route get POD-ADDRESS                    # far pod: does it know the way?",
        ),
        restaurant=(
            "At {far_node} the packing table checks the stamp, unpacks the box, and the plate goes over the pass "
            "counter to {far}. The answer goes back likewise, in a box with {node} written on it."
        ),
    ),
    "break": Lesson(
        title="Now break it",
        question="Since this morning pods of two nodes do not reach each other. Where do you begin?",
        answers=(
            "kubectl -n kube-system get pods -o wide     # agent on both nodes?",
            "kubectl -n kube-system logs AGENT-POD       # what does it say?",
            "ip -d link show type vxlan                  # is the device there, and UP?",
            "tcpdump -ni eth0 udp port PORT              # do packets leave? arrive?",
        ),
        restaurant=(
            "Somebody locked the packing table of {node}. Plates still cross the pass counter, but no box leaves: the "
            "manager of {node} knows why, the one of {far_node} only waits in vain."
        ),
    ),
    "recap": Lesson(
        title="Recap, and everything goes",
        question="'Pods cannot talk.' In which order do you look?",
        answers=(
            "kubectl get pods -o wide                    # 1. same node, or two nodes?",
            "nsenter -t PID -n ip route                  # 2. the pod: address, gateway",
            "bridge link; bridge fdb show                # 3. its node: switch, entries",
            "tcpdump -ni eth0 udp port PORT              # 4. the underlay, both ends",
        ),
        restaurant=(
            "Where the picture breaks: plates are copied, not moved; and ARP would be shouting a staff number "
            "across all restaurants, which the agents' phone list makes unnecessary here."
        ),
    ),
}
