/* SPDX-License-Identifier: Apache-2.0
 *
 * Partition.java - where the Java producer puts a key: reads keys, one a line, and prints their
 * partitions. Argument: the number of partitions.
 */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

public class Partition {
    public static void main(String[] args) throws Exception {
        int n = Integer.parseInt(args[0]);
        StringBuilder out = new StringBuilder();
        try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII))) {
            for (String key; (key = in.readLine()) != null; )
                out.append(BuiltInPartitioner.partitionForKey(key.getBytes(StandardCharsets.US_ASCII), n)).append('\n');
        }
        System.out.print(out);
    }
}
