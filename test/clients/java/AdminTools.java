import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools, unmodified, one after the other in one JVM: the start of a JVM for each would take longer than
 * its work. Reads lines of a main class and its arguments, tab between; answers each with what the tool printed and a line
 * "\001EXIT status".
 */
public final class AdminTools {
    private static final class Ended extends RuntimeException {
        final int status;

        Ended(int status) {
            super(null, null, false, false);
            this.status = status;
        }
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Exit.setExitProcedure((status, message) -> { throw new Ended(status); });
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ByteArrayOutputStream printed = new ByteArrayOutputStream();
            PrintStream both = new PrintStream(printed, true, StandardCharsets.UTF_8);
            System.setOut(both);
            System.setErr(both);
            int status = run(line.split("\t", -1), both);
            both.flush();
            out.print(printed.toString(StandardCharsets.UTF_8));
            out.println("\n\001EXIT " + status);
        }
    }

    private static int run(String[] command, PrintStream both) {
        try {
            String[] args = Arrays.copyOfRange(command, 1, command.length);
            scala.Console.withOut(both, () -> scala.Console.withErr(both, () -> invoke(command[0], args)));
            return 0;
        } catch (Throwable t) {
            for (Throwable cause = t; cause != null; cause = cause.getCause()) {
                if (cause instanceof Ended) {
                    return ((Ended) cause).status;
                }
            }
            both.println(t instanceof RuntimeException && t.getCause() != null ? t.getCause() : t);
            return 1;
        }
    }

    private static Object invoke(String main, String[] args) {
        try {
            return Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (InvocationTargetException e) {
            throw e.getCause() instanceof RuntimeException ? (RuntimeException) e.getCause() : new RuntimeException(e.getCause());
        } catch (ReflectiveOperationException e) {
            throw new RuntimeException(e);
        }
    }
}
