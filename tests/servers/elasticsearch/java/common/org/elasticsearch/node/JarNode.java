package org.elasticsearch.node;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.common.Priority;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.core.TimeValue;
import org.elasticsearch.env.Environment;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.plugins.JarPlugins;
import org.elasticsearch.plugins.PluginsLoader;
import org.elasticsearch.plugins.PluginsService;

/**
 * One Elasticsearch node out of the jars on the class path. In this package because the constructors it needs are
 * package-private. Arguments: HOME [setting=value ...]. Writes HOME/port when it answers; ends when standard input does,
 * so that it never outlives the process that started it.
 */
public class JarNode extends Node {
    private JarNode(Environment environment) {
        super(NodeConstruction.prepareConstruction(
            environment, PluginsLoader.createPluginsLoader(Set.of(), Set.of(), Map.of(), false), new NodeServiceProvider() {
                @Override
                PluginsService newPluginService(Environment e, PluginsLoader loader) {
                    return new JarPlugins(e, loader);
                }
            }, true));
    }

    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]).toAbsolutePath();
        Files.createDirectories(home.resolve("config"));
        LogConfigurator.configureESLogging();
        Settings.Builder settings = Settings.builder()
            .put("path.home", home.toString())
            .put("node.name", "test")
            .put("cluster.name", "test")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", "0")
            .put("transport.port", "0")
            .put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (int i = 1; i < args.length; i++) {
            String[] setting = args[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        JarNode node = new JarNode(new Environment(settings.build(), home.resolve("config")));
        node.start();
        Runtime.getRuntime().addShutdownHook(new Thread(node::closeQuietly));
        awaitShards(node);
        int port = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress().getPort();
        Path written = Files.writeString(home.resolve("port.part"), Integer.toString(port));
        Files.move(written, home.resolve("port"), StandardCopyOption.ATOMIC_MOVE);
        while (System.in.read() >= 0) { } // until whoever started us is gone
        System.exit(0);
    }

    private static void awaitShards(Node node) {
        TimeValue patience = TimeValue.timeValueSeconds(30);
        node.client().admin().cluster().prepareHealth(patience).setWaitForEvents(Priority.LANGUID)
            .setWaitForNoInitializingShards(true).setWaitForYellowStatus().setTimeout(patience).get();
    }

    private void closeQuietly() {
        try {
            close();
        } catch (Exception e) {
            e.printStackTrace();
        }
    }
}
