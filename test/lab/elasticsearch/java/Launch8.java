import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** Launch8 HOME MEMBER starts one node of Elasticsearch 8.x: HOME holds modules and plugins, MEMBER config, data and logs. */
public class Launch8 {
  public static void main(String[] args) throws Exception {
    Path home = Path.of(args[0]), member = Path.of(args[1]);
    LogConfigurator.configureESLogging();
    var environment = InternalSettingsPreparer.prepareEnvironment(Settings.EMPTY,
        Map.of("path.home", home.toString(), "path.data", member + "/data", "path.logs", member + "/logs"), member.resolve("config"), () -> "node");
    var loader = PluginsLoader.createPluginsLoader(PluginsLoader.loadModulesBundles(home.resolve("modules")),
        PluginsLoader.loadPluginsBundles(home.resolve("plugins")), Map.of());
    Node node = new Node(environment, loader);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        node.close();
      } catch (Exception e) {
        e.printStackTrace();
      }
    }));
    node.start();
    new CountDownLatch(1).await();
  }
}
