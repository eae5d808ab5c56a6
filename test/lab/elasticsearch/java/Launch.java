import java.lang.reflect.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.CountDownLatch;
import java.util.function.Supplier;

/**
 * Launch HOME MEMBER starts one node of Elasticsearch 7.x or OpenSearch 2.x whose archives are on the class path.
 * HOME holds modules and plugins as a distribution does, MEMBER holds config, data and logs.
 * Node's constructor that takes plugins from the class path is protected, therefore reflection.
 */
public class Launch {
  static final String[] PLUGINS = {
    "analysis.common.CommonAnalysisPlugin", "analysis.common.CommonAnalysisModulePlugin",
    "geo.GeoModulePlugin",
    "index.mapper.MapperExtrasPlugin", "index.mapper.MapperExtrasModulePlugin",
    "index.rankeval.RankEvalPlugin", "index.rankeval.RankEvalModulePlugin",
    "index.reindex.ReindexPlugin", "reindex.ReindexPlugin", "index.reindex.ReindexModulePlugin",
    "ingest.common.IngestCommonPlugin", "ingest.common.IngestCommonModulePlugin",
    "ingest.useragent.IngestUserAgentPlugin", "ingest.useragent.IngestUserAgentModulePlugin",
    "join.ParentJoinPlugin", "join.ParentJoinModulePlugin",
    "painless.PainlessPlugin", "painless.PainlessModulePlugin",
    "percolator.PercolatorPlugin", "percolator.PercolatorModulePlugin",
    "plugin.repository.url.URLRepositoryPlugin", "plugin.repository.url.URLRepositoryModulePlugin",
    "script.expression.ExpressionPlugin", "script.expression.ExpressionModulePlugin",
    "script.mustache.MustachePlugin", "script.mustache.MustacheModulePlugin",
    "search.aggregations.matrix.MatrixAggregationPlugin", "search.aggregations.matrix.MatrixAggregationModulePlugin",
    "transport.Netty4Plugin", "transport.netty4.Netty4Plugin", "transport.Netty4ModulePlugin"};

  static Class<?> find(String name) {
    try {
      return Class.forName(name);
    } catch (ClassNotFoundException e) {
      return null;
    }
  }

  public static void main(String[] args) throws Exception {
    String product = find("org.opensearch.Version") != null ? "org.opensearch." : "org.elasticsearch.";
    Path home = Path.of(args[0]), member = Path.of(args[1]);
    Map<String, String> properties = Map.of("path.home", home.toString(), "path.data", member.resolve("data").toString(),
        "path.logs", member.resolve("logs").toString());
    Class<?> settings = Class.forName(product + "common.settings.Settings");
    Object environment = Class.forName(product + "node.InternalSettingsPreparer")
        .getMethod("prepareEnvironment", settings, Map.class, Path.class, Supplier.class)
        .invoke(null, settings.getField("EMPTY").get(null), properties, member.resolve("config"), (Supplier<String>) () -> "node");
    List<Object> plugins = new ArrayList<>();
    for (String name : PLUGINS) {
      Class<?> plugin = find(product + name);
      if (plugin != null) plugins.add(plugin);
    }
    Class<?> nodeClass = Class.forName(product + "node.Node");
    Constructor<?> constructor = null;
    for (Constructor<?> c : nodeClass.getDeclaredConstructors())
      if (c.getParameterCount() == 3 && c.getParameterTypes()[1] == Collection.class) constructor = c;
    constructor.setAccessible(true);
    if (constructor.getGenericParameterTypes()[1].toString().contains("PluginInfo")) {
      Class<?> version = Class.forName(product + "Version");
      Constructor<?> info = Class.forName(product + "plugins.PluginInfo").getConstructor(String.class, String.class, String.class, version,
          String.class, String.class, String.class, List.class, boolean.class);
      Object current = version.getField("CURRENT").get(null);
      for (ListIterator<Object> i = plugins.listIterator(); i.hasNext(); ) {
        String name = ((Class<?>) i.next()).getName();
        i.set(info.newInstance(name, "classpath plugin", "NA", current, "17", name, null, List.of(), false));
      }
    }
    try {
      Object node = constructor.newInstance(environment, plugins, true);
      Runtime.getRuntime().addShutdownHook(new Thread(() -> {
        try {
          nodeClass.getMethod("close").invoke(node);
        } catch (Exception e) {
          e.printStackTrace();
        }
      }));
      nodeClass.getMethod("start").invoke(node);
    } catch (InvocationTargetException e) {
      e.getCause().printStackTrace();
      System.exit(3);
    }
    new CountDownLatch(1).await();
  }
}
