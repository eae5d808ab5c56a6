import java.io.File;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.zookeeper.server.DataNode;
import org.apache.zookeeper.server.DataTree;
import org.apache.zookeeper.server.EphemeralType;
import org.apache.zookeeper.server.persistence.FileTxnSnapLog;

/**
 * Prints the container and TTL nodes of a data directory, which no client can
 * tell from plain ones: the server's own classes read snapshot and log.
 * First line: the last transaction read, in hexadecimal.
 */
public class Kinds {
    public static void main(String[] args) throws Exception {
        File dir = new File(args[0]);
        DataTree tree = new DataTree();
        FileTxnSnapLog files = new FileTxnSnapLog(dir, dir);
        long last = files.restore(tree, new ConcurrentHashMap<>(), (hdr, rec, digest) -> { });
        files.close();
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        out.println(Long.toHexString(last));
        ArrayDeque<String> queue = new ArrayDeque<>();
        queue.add("/");
        while (!queue.isEmpty()) {
            String path = queue.remove();
            DataNode node = tree.getNode(path);
            long owner = node.stat.getEphemeralOwner();
            switch (EphemeralType.get(owner)) {
                case CONTAINER -> out.println("container\t" + path);
                case TTL -> out.println("ttl=" + EphemeralType.TTL.getValue(owner) + "\t" + path);
                default -> { }
            }
            for (String child : node.getChildren()) {
                queue.add(path.equals("/") ? "/" + child : path + "/" + child);
            }
        }
        out.flush();
        System.exit(0);
    }
}
