package org.elasticsearch.plugins;

import java.lang.reflect.Constructor;
import java.util.ArrayList;
import java.util.List;
import java.util.ServiceLoader;
import java.util.function.Supplier;
import m3connect.RootPlugin;
import org.elasticsearch.env.Environment;
import org.elasticsearch.transport.netty4.Netty4Plugin;
import org.elasticsearch.xpack.core.XPackPlugin;

/** The plugins of a node as classes on the class path: no plugin directories and no module layers. */
public class JarPlugins extends PluginsService {
    private final List<LoadedPlugin> loaded = new ArrayList<>();

    public JarPlugins(Environment environment, PluginsLoader loader) {
        super(environment.settings(), environment.configDir(), loader);
        for (Class<? extends Plugin> type : List.of(Netty4Plugin.class, XPackPlugin.class, RootPlugin.class)) {
            Plugin plugin = loadPlugin(type, environment.settings(), environment.configDir());
            loaded.add(new LoadedPlugin(Descriptors.of(type), plugin, type.getClassLoader()));
            if (plugin instanceof ExtensiblePlugin extensible) {
                // Nothing extends it, but x-pack-core sets up its licence state in this call.
                extensible.loadExtensions(new ExtensiblePlugin.ExtensionLoader() {
                    @Override
                    public <T> List<T> loadExtensions(Class<T> extension) {
                        return List.of();
                    }
                });
            }
        }
    }

    @Override
    protected List<LoadedPlugin> plugins() {
        return loaded;
    }

    /** All plugins share one class loader: the inherited method would find every service once per plugin. */
    @Override
    public <T> List<? extends T> loadServiceProviders(Class<T> service) {
        List<T> found = new ArrayList<>();
        ServiceLoader.load(service, getClass().getClassLoader()).stream().forEach(provider -> {
            T made = fromItsPlugin(service, provider.type());
            found.add(made == null ? provider.get() : made);
        });
        return found;
    }

    /** Some services take the plugin they belong to as their constructor's argument. */
    private <T> T fromItsPlugin(Class<T> service, Class<?> type) {
        for (Constructor<?> constructor : type.getConstructors()) {
            for (LoadedPlugin plugin : loaded) {
                Class<?>[] wanted = constructor.getParameterTypes();
                if (wanted.length == 1 && wanted[0].isInstance(plugin.instance())) {
                    try {
                        return service.cast(constructor.newInstance(plugin.instance()));
                    } catch (ReflectiveOperationException e) {
                        throw new IllegalStateException(e);
                    }
                }
            }
        }
        return null;
    }

    @Override
    public <T> T loadSingletonServiceProvider(Class<T> service, Supplier<T> fallback) {
        List<? extends T> found = loadServiceProviders(service);
        return found.isEmpty() ? fallback.get() : found.get(0);
    }
}
