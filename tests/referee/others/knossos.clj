; Has Knossos judge EDN histories of a compare-and-set register: for each file a line FILE<TAB>verdict.
; Knossos' model of a multiset is not used here, and the library it takes it from is not packaged.
(create-ns 'multiset.core)
(intern 'multiset.core 'multiset (fn [& _] (throw (UnsupportedOperationException. "no multisets"))))
(dosync (commute @#'clojure.core/*loaded-libs* conj 'multiset.core))

(require '[clojure.edn :as edn]
         '[clojure.string :as string]
         '[knossos.history :as history]
         '[knossos.model :as model]
         '[knossos.wgl :as wgl])

(defn judge [path]
  (let [events (mapv edn/read-string (string/split-lines (slurp path)))
        found (deref (future (wgl/analysis (model/cas-register) (history/index events))) 60000 {:valid? :unknown})]
    (case (:valid? found) true "linearizable" false "not-linearizable" "unknown")))

(doseq [path *command-line-args*]
  (println (str path "\t" (judge path))))
(shutdown-agents)
(System/exit 0)
