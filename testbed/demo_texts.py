"""What the demo says beside what it shows: title, exam question and restaurant of every step. Text only, no decisions.

Curly braces are names of the lab at hand (`testbed.demo_show.Show.names`). The exam questions are of the kind that the
CKA asks about a cluster; the answers are commands that work in one. The restaurant chain is the same in every step.
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
            "kubectl -n kube-system get pods -o wide     # is one of them restarting?",
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
            "cat /etc/cni/net.d/10-weave.conflist        # 'type' names the plugin",
            "ip -d link show type bridge                 # the switch; its MTU",
            "ip address show weave                       # the pods' default gateway",
        ),
        restaurant=(
            "`weave` is the pass counter inside the restaurant. `vxlan-6784` is where the agent packs plates into "
            "delivery boxes. The forwarding entries are the phone list that the agents exchange: who works in which "
            "restaurant. The VNI is the chain's stamp on every box."
        ),
    ),
    "pod": Lesson(
        title="A pod is created: the CNI call",
        question="A pod stays in ContainerCreating, its node is NotReady: 'cni plugin not initialized'. Why?",
        answers=(
            "kubectl describe pod POD                    # Events: FailedCreatePodSandBox",
            "ls /etc/cni/net.d /opt/cni/bin              # no config? no plugin binary?",
            "journalctl -u kubelet -u containerd         # the plugin's own error text",
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
            "tcpdump -ni eth0 udp port 6784              # on both nodes: sent? received?",
            "iptables-save | grep -i drop                # is the add-on's UDP port closed?",
            "bridge fdb show dev vxlan-6784              # is the other node in the list?",
            "ping -M do -s 1422 POD-ADDRESS              # only big ones fail: the MTU",
        ),
        restaurant=(
            "The plate is for another restaurant: the agent puts it into a delivery box and writes {far_node} outside "
            "(the outer address). The staff number stays on the plate (the inner address). The walls of the box are 50 "
            "bytes, and the courier reads only the box: what is outside it."
        ),
    ),
    "reply": Lesson(
        title="The reply takes the same way back",
        question="Requests arrive at the other node, but no reply comes back. Where do you look?",
        answers=(
            "tcpdump -ni eth0 udp port 6784              # far node: does a reply leave?",
            "bridge fdb show dev vxlan-6784              # far node: is the near one in it?",
            "ip route get POD-ADDRESS                    # far pod: does it know the way?",
        ),
        restaurant=(
            "At {far_node} the agent checks the stamp, unpacks the box and puts the plate on its own pass counter, for "
            "{far}. The answer goes back likewise, in a box with {node} written on it."
        ),
    ),
    "recap": Lesson(
        title="Recap, and everything goes",
        question="'Pods cannot talk.' In which order do you look?",
        answers=(
            "kubectl get pods -o wide                    # 1. same node, or two nodes?",
            "kubectl exec POD -- ip route                # 2. the pod: address, gateway",
            "bridge link; bridge fdb show br weave       # 3. its node: switch, entries",
            "tcpdump -ni eth0 udp port 6784              # 4. the underlay, both ends",
        ),
        restaurant=(
            "Where the picture breaks: plates are copied, not moved; and ARP would be shouting a staff number "
            "across all restaurants, which the agents' phone list makes unnecessary here."
        ),
    ),
}
